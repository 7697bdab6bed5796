"""Latency and memory: the right rows, and numbers that follow what is measured."""

import json

import numpy as np
import pytest

from multipress.cli.main import main
from multipress.errors import RunError, SettingError
from multipress.measure import measure_memory, measure_speed
from multipress.measure.memory import peak_bytes


def test_each_shape_has_a_median_and_a_higher_percentile(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a")
    rows = measure_speed(artifact, [(1, 8), (16, 24), (1, 128)], repeats=9)
    values = {(row.context["batch_size"], row.context["length"], row.name): row.value for row in rows}
    # The model has 24 positions.
    assert {key[:2] for key in values} == {(1, 8), (16, 24), (1, 24)}
    for shape in ((1, 8), (16, 24), (1, 24)):
        assert 0 < values[*shape, "latency_p50_ms"] <= values[*shape, "latency_p95_ms"]
    assert values[1, 8, "latency_p50_ms"] < values[16, 24, "latency_p50_ms"]
    assert rows[0].context["threads"] == 1
    assert "cpu" in rows[0].context["computer"]


def test_others_take_turns_with_the_artifact_and_one_processor_is_kept(write_tiny, tmp_path):
    import os

    artifact = write_tiny(tmp_path / "a")
    turns, places = [], set()

    class Other:
        def run(self, batch):
            turns.append(batch["input_ids"].shape)
            places.update(os.sched_getaffinity(0))
            return np.zeros((len(batch["input_ids"]), 3), dtype=np.float32)

    before = os.sched_getaffinity(0)
    rows = measure_speed(artifact, [(1, 4), (2, 8)], repeats=2, precision="int8", others={"rival": Other()})
    assert turns == [(1, 4), (2, 8)] * 5
    assert (len(places), os.sched_getaffinity(0)) == (1, before)
    names = {row.name for row in rows}
    assert names == {f"{of}latency_{part}_ms" for of in ("", "rival:") for part in ("p50", "p95")}
    assert {row.context.get("precision") for row in rows if not row.name.startswith("rival")} == {"int8"}


def test_nothing_to_time_is_a_setting_error(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a")
    for shapes, repeats in (([(1, 0)], 3), ([(0, 8)], 3), ([(1, 8)], 0)):
        with pytest.raises(SettingError):
            measure_speed(artifact, shapes, repeats=repeats)


def test_the_peak_is_that_of_a_new_process_not_of_this_one(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a")
    ballast = np.ones(400_000_000 // 8)
    rows = {row.name: row.value for row in measure_memory(artifact)}
    assert peak_bytes() > 400_000_000 * (ballast[0] > 0)
    assert 20_000_000 < rows["peak_memory_bytes"] < 300_000_000
    assert 0 < rows["peak_memory_added_bytes"] < rows["peak_memory_bytes"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_models_of_pairs_are_measured_too(write_tiny, tmp_path, capsys, precision):
    task = write_tiny(tmp_path / "a").facts["task"]
    write_tiny(tmp_path / "pair", task=task | {"is_pair": True})
    rows = [{"sentence1": "w1 w2", "sentence2": "w3", "label": label} for label in task["labels"]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["measure", str(tmp_path / "pair"), "--data", str(tmp_path / "rows.jsonl"), "--repeats", "1", "--json"]
    assert main([*command, "--precision", precision, "--threads", "2"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert ("int8:agreement" in found) == (precision == "int8")
    for name in ("score", "latency_p50_ms", "peak_memory_bytes"):
        assert found[name]["context"]["precision"] == precision
    for name in ("latency_p50_ms", "peak_memory_bytes"):
        assert found[name]["context"]["threads"] == 2


def test_a_failed_process_is_a_run_error_that_says_why(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a")
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(RunError, match=r"no config\.json"):
        measure_memory(artifact)
