"""`multipress export` from the command line: rows of the task, a file, or any text; one JSON document."""

import json

import pytest

from multipress.cli.main import main


@pytest.fixture(scope="module")
def folder(write_tiny, tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("cli") / "artifact", bits=8).folder


def test_a_file_of_rows_gives_agreement_and_score(folder, tmp_path, capsys):
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "".join(f"w{i} w{i + 1},{'good' if i % 2 else 'bad'}\n" for i in range(20)))
    assert main(["export", str(folder), "--data", str(data), "--json", "-o", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    parity = report["models"]["onnx/model.onnx"]["parity"]
    assert (parity["rows"], parity["agreement"], parity["score_change"]) == (20, 1.0, 0.0)


def test_without_rows_of_its_own_an_artifact_is_compared_on_any_text(folder, tmp_path, capsys):
    command = ["export", str(folder), "--to", "safetensors", "--max-rows", "30", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    found = capsys.readouterr()
    assert "100.00% of 30 rows agree" in found.out
    assert "without a score" in found.err


def test_what_an_integer_file_rounds_untrained_is_said(write_tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("multipress.runtime.products.has_exact_products", lambda: False)
    common = ["--precision", "int8", "--allow-drift", "-o"]
    for bits, untrained in ((8, False), (16, True)):
        folder = write_tiny(tmp_path / str(bits), bits=bits).folder
        assert main(["export", str(folder), *common, str(tmp_path / f"out{bits}")]) == 0
        told = capsys.readouterr().err
        assert "activation_scale=static" in told
        assert ("untrained" in told) == untrained
        assert "--vnni" not in told
    monkeypatch.setattr("multipress.runtime.products.has_exact_products", lambda: True)
    assert main(["export", str(folder), *common, str(tmp_path / "again")]) == 0
    assert "--vnni" in capsys.readouterr().err


def test_wrong_use_is_one_line_and_exit_code_2(folder, tmp_path, capsys):
    out = ["-o", str(tmp_path / "out")]
    for wrong in (["--to", "safetensors", "--precision", "int8"], ["--to", "tflite"], ["--data", "none.csv"]):
        assert main(["export", str(folder), *wrong, *out]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["export", str(folder), "--reduced-range", *out]) == 2
    assert "--precision int8" in capsys.readouterr().err


def test_predict_computes_in_integers_where_asked(folder, capsys):
    texts = ["w1 w2 w3", "w4"]
    scores = []
    for precision in ("fp32", "int8"):
        assert main(["predict", str(folder), *texts, "--precision", precision, "--json"]) == 0
        scores.append([row["score"] for row in json.loads(capsys.readouterr().out)])
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
    assert scores[0] != scores[1]
    assert main(["predict", str(folder), "w1", "--precision", "fp8"]) == 2
    assert "there are: fp32, int8" in capsys.readouterr().err


def test_measure_compares_and_times_the_exports_and_the_rival(folder, tmp_path, capsys):
    data, out = tmp_path / "rows.csv", tmp_path / "out"
    data.write_text("text,label\n" + "".join(f"w{i} w{i + 1},{'good' if i % 2 else 'bad'}\n" for i in range(20)))
    export = ["export", str(folder), "--precision", "int8", "--data", str(data), "--allow-drift", "-o", str(out)]
    assert main(export) == 0
    assert main(["export", str(folder), "--to", "safetensors", "--data", str(data), "-o", str(out)]) == 0
    capsys.readouterr()
    command = ["measure", str(folder), "--data", str(data), "--export", str(out), "--rival", "--repeats", "1", "--json"]
    assert main(command) == 0
    rows = {(row["name"], row["context"].get("length")): row for row in json.loads(capsys.readouterr().out)}
    for of in ("rival", "onnx/model_qint8.onnx"):
        assert rows[f"{of}:agreement", None]["context"]["rows"] == 20
        assert rows[f"{of}:latency_p50_ms", 24]["value"] > 0
    assert rows["model.safetensors:agreement", None]["value"] == 1
    assert ("model.safetensors:latency_p50_ms", 24) not in rows
    assert main(["measure", str(folder), "--export", str(tmp_path)]) == 2
    assert "holds no exports" in capsys.readouterr().err
