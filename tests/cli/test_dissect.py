"""`multipress dissect` as a user meets it."""

import csv
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from multipress.artifact import open_artifact
from multipress.checkpoint import load_model, save_model
from multipress.dissect.probe_tasks import PROBES
from multipress.dissect.side import open_side, told_apart
from multipress.models.encoder import encoder_linears
from multipress.recipe import Recipe
from multipress.spec import DataSpec, MethodSpec, RunSpec
from multipress.store import Store
from tiny import bert_config, word_piece

SIMILAR = ("linear_cka", "linear_cka_debiased", "svcca", "pwcca", "maxcorr", "regression", "regression_back", "mincorr")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(" ".join(f"w{word}" for word in random.integers(59, size=12)) for _ in range(30)))
    return path


def write(folder, sparsity=0.0, run_id="", seed=0, spec=None, **shape):
    """Store a random BERT with so many zeros in its blocks; the same seed and shape give the same other weights."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(bert_config(59, num_labels=2, **shape)).eval()
    with torch.no_grad():
        for weight in model.bert.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
        for linear in encoder_linears(model).values():
            linear.weight[linear.weight.abs() <= linear.weight.abs().quantile(sparsity)] *= sparsity == 0
    task = {"name": "t", "target": "classes", "labels": ["a", "b"], "metrics": ["accuracy"], "score": "accuracy"}
    words = word_piece([f"w{index}" for index in range(59)])
    save_model(
        folder, model, tokenizer_json=words, facts={"run_id": run_id, "task": task, "max_length": 16, "spec": spec}
    )
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    return write(folder / "small", sparsity=0.5), write(folder / "dense")


def test_rows_say_what_differs_layer_by_layer(folders, text, run):
    small, dense = folders
    code, out, err = run("dissect", small, "--against", dense, "--data", text, "--json")
    assert (code, err.count("small:")) == (0, 3)
    rows = json.loads(out)
    assert all({"name", "value", "unit", "context"} <= set(row) for row in rows)
    by_name = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    for name in SIMILAR:
        values = {row["context"]["layer"]: row["value"] for row in by_name[name] if "low" in row["context"]}
        assert set(values) == ({0, 1, 2} if name != "mincorr" else set())
        # The embeddings are the same; zeros are in the blocks.
        assert all(-0.2 < value < 1 if layer else value == pytest.approx(1) for layer, value in values.items())
    assert {row["context"]["layer"] for row in by_name["attention_entropy"]} == {1, 2}
    assert {row["context"]["head"] for row in by_name["attention_head_match"]} <= {1, 2}
    assert by_name["linear_cka"][0]["context"]["words"] == 360
    halved = [
        row for row in by_name["zero_share"] if row["context"]["matrix"] == "key" and not row["context"]["is_bias"]
    ]
    assert all(row["value"] >= 0.5 for row in halved)


@pytest.mark.parametrize("head", ["classifier", "none"])
def test_a_model_as_users_have_it_is_dissected_too(folders, text, run, tmp_path, head):
    """The dense artifact's model, saved by transformers: its numbers are the same, but for their 16 bits."""
    _, dense = folders
    model = load_model(dense)
    (model if head == "classifier" else model.bert).save_pretrained(tmp_path / "plain")
    (tmp_path / "plain" / "tokenizer.json").write_text(open_artifact(dense).tokenizer_json())
    code, out, err = run("dissect", dense, "--against", tmp_path / "plain", "--data", text, "--json")
    assert code == 0, err
    rows = [row for row in json.loads(out) if row["name"] == "linear_cka"]
    assert {row["context"]["against"] for row in rows} == {"plain"}
    alike = [row["value"] for row in rows if row["context"]["layer"] == row["context"]["against_layer"]]
    assert alike == pytest.approx([1.0] * 3, abs=1e-6)


def test_an_artifact_against_itself_differs_in_nothing(folders, text, run):
    rows = json.loads(run("dissect", folders[1], "--against", folders[1], "--data", text, "--json")[1])
    for row in rows:
        context = row["context"]
        if row["name"] in SIMILAR and context["layer"] == context.get("against_layer", context["layer"]):
            assert row["value"] == pytest.approx(1)
        assert context.get("change", 0) == 0


def test_models_of_other_width_and_depth_are_compared(folders, text, run, tmp_path):
    other = write(tmp_path / "other", num_hidden_layers=4, hidden_size=24, num_attention_heads=3)
    rows = json.loads(run("dissect", other, "--against", folders[1], "--data", text, "--json")[1])
    alike = [row["context"] for row in rows if row["name"] == "svcca" and "low" in row["context"]]
    assert [(c["layer"], c["against_layer"]) for c in alike] == [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)]
    assert {row["context"]["match"] for row in rows if row["name"] == "attention_head_match"} <= {1, 2, 3}
    assert "neurons_same_index" not in {row["name"] for row in rows}


def test_a_model_that_lost_words_is_compared_word_by_word(folders, run, tmp_path):
    from multipress.methods import Context
    from multipress.methods.vocabulary import Vocabulary

    vocabulary = ["ab", "##c", "abc", "x", "y", "z", "a", "##b", "b"]

    def store(name, kept=None):
        torch.manual_seed(0)
        model = BertForSequenceClassification(bert_config(len(vocabulary), num_labels=2)).eval()
        if kept:
            method = Vocabulary()
            ids = torch.tensor([*range(5), *(5 + vocabulary.index(word) for word in kept)])
            method.convert(method.prepare(model, Context(words=lambda general: ids)))
        task = {"name": "t", "target": "classes", "labels": ["a", "b"], "metrics": ["accuracy"], "score": "accuracy"}
        facts = {"run_id": "", "task": task, "max_length": 16}
        return save_model(tmp_path / name, model, tokenizer_json=word_piece(vocabulary), facts=facts).folder

    whole, small = store("whole"), store("small", ["ab", "##c", "x", "y", "z", "a", "##b", "b"])
    text = tmp_path / "text.txt"
    random = np.random.default_rng(3)
    text.write_text("\n".join(" ".join(random.choice(list("xyzab"), size=8)) for _ in range(30)))
    same = json.loads(run("dissect", small, "--against", whole, "--data", text, "--json")[1])
    # No word of the text was lost, so nothing differs.
    assert all(
        row["value"] == pytest.approx(1) for row in same if row["name"] == "linear_cka" and "low" in row["context"]
    )
    text.write_text("\n".join(" ".join(["abc", *random.choice(list("xyz"), size=7)]) for _ in range(30)))
    rows = json.loads(run("dissect", small, "--against", whole, "--data", text, "--json")[1])
    first = next(row for row in rows if row["name"] == "linear_cka")
    assert first["context"]["words"] == 240  # abc is two pieces of the one and one of the other
    assert first["value"] < 0.9999
    assert any(row["name"] == "attention_cka" for row in rows)


def test_a_classifier_has_no_decoder(folders, run, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("text,label\n" + "w1 w2 w3,w4\n" * 30)
    code, _, err = run("dissect", folders[0], "--against", folders[1], "--data", pairs, "--label", "label")
    assert code == 2
    assert "is no translator" in err


def test_a_page_and_a_table_are_made(folders, text, run, tmp_path):
    files = [tmp_path / "page.html", tmp_path / "a" / "figure.svg", tmp_path / "rows.csv"]
    options = [part for pair in zip(("-o", "--figure", "--csv"), files, strict=True) for part in pair]
    code, out, _ = run("dissect", folders[0], "--against", folders[1], "--data", text, *options)
    assert (code, out.split()[:3]) == (0, [str(path) for path in files])
    assert "small against dense, 360 words of text.txt" in out
    ElementTree.fromstring(files[1].read_text())
    lines = list(csv.DictReader(files[2].read_text().splitlines()))
    assert [line["layer"] for line in lines if line["name"] == "linear_cka"] == ["0", "1", "2"]
    around = [line for line in lines if line["low"]]
    assert all(float(line["low"]) <= float(line["value"]) <= float(line["high"]) for line in around)
    assert {line["name"] for line in lines if not line["low"]} <= {"zero_share", "attention_head_match", "mincorr"}
    assert "Which head matches which" in (tmp_path / "page.html").read_text()
    shown = run("dissect", folders[0], "--against", folders[1], "--data", text)[1]
    assert "360 words of text.txt" in shown
    assert "small: " in shown.splitlines()[-1]


def test_rows_are_kept_beside_the_run_and_read_again(folders, text, run, tmp_path):
    store = Store(tmp_path / "runs")
    store.register("0" * 12, RunSpec("train", "tiny", DataSpec(task="t")).to_json())
    attempt = store.claim("0" * 12)
    write(attempt.folder / "artifact", sparsity=0.3, run_id="0" * 12)
    attempt.commit()
    asked = ("dissect", attempt.folder / "artifact", "--against", folders[1], "--data", text, "--runs", store.folder)
    code, out, err = run(*asked, "--json")
    assert code == 0
    (kept,) = (store.folder / ("0" * 12) / "measurements").iterdir()
    assert kept.name.startswith("dissect_")
    assert (kept / "attempt-1" / "DONE").is_file()
    assert [verdict.problems for verdict in store.verify()] == [()]
    again = run(*asked, "--json")
    assert again == (0, out, "")  # nothing was computed
    store.save_study("s", {"cells": ["0" * 12], "spec": {}})
    assert run("report", store.folder, "-o", tmp_path / "page.html")[0] == 0
    assert "Inside: what compression changed in " in (tmp_path / "page.html").read_text()
    code, _, err = run("dissect", folders[0], *asked[2:])
    assert code == 1
    assert "--runs" in err


def write_probes(folder, seed=1):
    """Sentences whose label is their last word."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    random = np.random.default_rng(seed)
    columns = {"split": [], "label": [], "sentence": []}
    for split, count in (("train", 300), ("dev", 60), ("test", 100)):
        for _ in range(count):
            label = int(random.integers(2))
            words = [f"w{word}" for word in random.integers(20, 50, size=4)]
            for key, value in zip(columns, (split, "ab"[label], " ".join([*words, f"w{label}"])), strict=True):
                columns[key].append(value)
    (folder / "probing").mkdir()
    parquet.write_table(pa.table(columns), folder / "probing" / "past_present.parquet")


def test_probes_find_what_the_words_tell(folders, text, run, tmp_path):
    write_probes(tmp_path)
    rows = json.loads(
        run("dissect", folders[0], "--against", folders[1], "--data", text, "--probes", "past_present", "--data-dir",
            tmp_path, "--seeds", 2, "--json")[1]
    )  # fmt: skip
    found = {row["context"]["layer"]: row for row in rows if row["name"] == "probe_accuracy"}
    assert set(found) == {0, 1, 2}
    assert found[0]["value"] > 0.9
    for row in found.values():
        context = row["context"]
        assert context["change"] == pytest.approx(row["value"] - context["against_value"])
        assert context["low"] <= row["value"] <= context["high"]
        assert (context["test_examples"], context["seeds"]) == (100, 2)
    assert {row["context"]["layer"] for row in rows if row["name"] == "probe_selectivity"} == {0, 1, 2}


def test_rows_of_another_question_have_another_place(folders, text, tmp_path):
    from multipress.dissect.run import Dissection, ask

    write_probes(tmp_path)
    small, dense = map(open_side, folders)

    def name(reference=dense, words=10_000, **changes):
        with Dissection(reference, ask(str(text), words, **changes)) as dissection:
            return dissection.name

    probing = {"probes": ("past_present",), "data_dir": tmp_path}
    names = [name(), name(small), name(words=250), name(**probing), name(**probing, seeds=2)]
    (tmp_path / "probing/past_present.parquet").unlink()
    (tmp_path / "probing").rmdir()
    write_probes(tmp_path, seed=2)
    names.append(name(**probing))
    assert len(set(names)) == 6
    assert name(seeds=2, threads=1, memory_mb=99) == name()


def test_bad_input_is_one_line_and_exit_code_2(folders, text, run, tmp_path, monkeypatch):
    monkeypatch.delenv("MULTIPRESS_DATA", raising=False)
    small, dense = folders
    (tmp_path / "short.txt").write_text("w1 w2 w3\n" * 25)
    shutil.copytree(dense, tmp_path / "run" / "attempt-1" / "artifact")
    partial = shutil.copytree(dense, tmp_path / "partial")
    (partial / "manifest.json").unlink()
    cases = [
        (("dissect", small, "--against", dense, "--probes", "nonsense"), "coreference_arc"),
        (("dissect", small, "--against", dense, "--data", text, "--probes", "pos"), "MULTIPRESS_DATA"),
        (("dissect", small, "--against", dense, "--data", tmp_path / "none.txt"), "none.txt"),
        (("dissect", small, "--against", tmp_path), "artifact"),
        (("dissect", small, "--against", tmp_path / "nowhere"), "nowhere"),
        (("dissect", small, "--against", "transformer-tiny"), "no weights yet"),
        (("dissect", small, "--against", partial), "manifest.json"),
        (("dissect", small, "--against", dense, "--data", tmp_path / "short.txt", "--words", 60), "64"),
        (("dissect", small, "--against", dense, "--data", tmp_path / "short.txt", "--words", 9), "more --words than 9"),
        (("dissect", small, "--against", dense, "--data", tmp_path / "few.txt"), "6 words in 2 rows"),
        (("dissect", small, "--against", dense, "--data", tmp_path / "pairs.csv"), "translations with --label"),
        (("dissect", small, small, "--against", dense), "the same artifact"),
        (("dissect", small, "--against", tmp_path / "run"), "attempt-1/artifact"),
        (("dissect", small, "--against", dense, "--figure", tmp_path / "figure.png"), ".svg alone"),
        (("dissect", small, "--against", dense, "--csv", tmp_path), "is a folder"),
        (("dissect", small, "--against", dense, "-o", tmp_path / "short.txt" / "page.html"), "is a file"),
    ]
    (tmp_path / "few.txt").write_text("w1 w2 w3\n" * 2)
    (tmp_path / "pairs.csv").write_text("en,de\nw1,w2\n" * 30)
    for arguments, words in cases:
        code, out, err = run(*arguments)
        assert (code, out) == (2, ""), arguments
        last = err.strip().splitlines()[-1]
        assert last.startswith("multipress: ")
        assert words in last


def test_what_is_compared_with_itself_is_said_and_files_come_beside_the_table(folders, text, run, tmp_path):
    code, out, err = run("dissect", folders[1], "--against", folders[1], "--data", text, "--csv", tmp_path / "rows.csv")
    assert code == 0
    assert "the very artifact" in err
    assert "layer" in out
    assert (tmp_path / "rows.csv").is_file()


def test_zeros_at_random_are_in_the_name_in_any_company(tmp_path, text, run):
    """Two rows with one name would be taken for one artifact."""
    for importance in ("random", "magnitude"):
        methods = Recipe.from_specs((MethodSpec("pruning", {"sparsity": 0.5, "importance": importance}),)).specs()
        spec = RunSpec("train", "tiny", DataSpec(task="sst2"), methods=methods).to_json()
        write(tmp_path / importance, sparsity=0.5, run_id=importance, spec=spec)
    alone = [open_side(tmp_path / name).label for name in ("random", "magnitude")]
    assert ["importance=random" in label for label in alone] == [True, False]
    together = told_apart([open_side(tmp_path / name) for name in ("random", "magnitude")])
    assert all(label.count("[") == 1 for label in together)
    assert all(f"importance={name}" in label for name, label in zip(("random", "magnitude"), together, strict=True))
    dense = write(tmp_path / "dense")
    code, _, err = run(
        "dissect", tmp_path / "random", "--against", dense, "--data", text, "--csv", tmp_path / "rows.csv"
    )
    assert code == 0, err
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["run_id"] for row in rows if row["name"] == "linear_cka"} == {"random"}


def test_probes_are_listed(run):
    assert [row["name"] for row in json.loads(run("list", "probes", "--json")[1])] == list(PROBES)
