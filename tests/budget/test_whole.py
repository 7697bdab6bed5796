"""`compress` from a classifier as transformers writes it to the winner, one round of tries each."""

import json
import math
import random
import re
import shutil
import warnings

import numpy as np
import pytest

import multipress as mp
from multipress.budget import fitting
from multipress.cli.main import main
from multipress.store import Store

QUICK = ["--epochs", "2", "--max-length", "16", "--time-limit", "0.001"]  # one round of tries, and no more


@pytest.fixture(autouse=True)
def whole_rounds(monkeypatch):
    """However late it is, a round that has begun ends."""
    monkeypatch.setattr(fitting, "LATE", math.inf)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    chance = random.Random(0)
    for name, count in (("train", 400), ("dev", 120), ("test", 100)):
        rows = []
        for _ in range(count):
            label = chance.choice(["lost", "here"])
            words = ["my", "card", "is", label, "number", *(str(chance.randrange(10)) for _ in range(3))]
            chance.shuffle(words)
            rows.append({"text": " ".join(words), "label": label.upper()})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def tuned(tiny_folder, files, tmp_path_factory):
    """A classifier fine-tuned by a plain loop, its labels named in another order and case than the rows'."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from multipress.runtime.tokenizer import TextEncoder

    folder = tmp_path_factory.mktemp("tuned") / "classifier"
    torch.manual_seed(0)
    names = ["lost", "here"]
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_folder, num_labels=2, id2label=dict(enumerate(names))
    )
    rows = [json.loads(line) for line in (files / "train.jsonl").read_text().splitlines()]
    encoded = TextEncoder((tiny_folder / "tokenizer.json").read_text(), 16).encode([row["text"] for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row.ids) for row in encoded], batch_first=True)
    labels = torch.tensor([names.index(row["label"].lower()) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(40):
        batch = torch.arange(32) + 32 * (step % 12)
        model(input_ids=ids[batch], attention_mask=(ids[batch] > 0).long(), labels=labels[batch]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    shutil.copy(tiny_folder / "tokenizer.json", folder)
    return str(folder)


def options(files, *, test=True):
    given = ["--train", str(files / "train.jsonl"), "--dev", str(files / "dev.jsonl")]
    return [*given, *QUICK, *(["--test", str(files / "test.jsonl")] if test else [])]


def texts_of(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_in_python_a_classifier_is_made_to_fit_and_scored_on_the_test_file(tuned, files, tmp_path):
    out = tmp_path / "small"
    artifact = mp.compress(
        tuned, str(files / "train.jsonl"), str(files / "dev.jsonl"), test=str(files / "test.jsonl"),
        out=out, max_mb=0.06, max_length=16, epochs=2, minutes=0.001,
    )  # fmt: skip
    size = sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md")
    assert artifact.package_bytes == size <= 60_000
    told = json.loads((tmp_path / "small.search" / "result.json").read_text())
    rows = {row["name"]: row for row in told["rows"]}
    assert (told["meets_budget"], told["missed"], told["num_rows"]) == (True, [], 100)
    assert rows["after"]["package_bytes"] == size
    files_before = ("model.safetensors", "config.json", "tokenizer.json")
    assert rows["before"]["package_bytes"] == sum((fitting.Path(tuned) / name).stat().st_size for name in files_before)
    cells = Store(tmp_path / "small.search" / "runs").cells()
    assert sum(bool(cell["methods"]) for cell in cells) == 2  # there was no time for another round
    # The score is that of the stored folder on the test file.
    labels = [json.loads(line)["label"] for line in (files / "test.jsonl").read_text().splitlines()]
    found = mp.open(out)(texts_of(files / "test.jsonl"))
    assert rows["after"]["score"] == np.mean([one.label == label for one, label in zip(found, labels, strict=True)])
    assert f"({told['num_rows']} rows)" in (out / "README.md").read_text()
    assert rows["before"]["score"] > 0.9


def test_the_smallest_within_a_drop_by_the_command(tuned, files, tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["compress", tuned, *options(files, test=False), "--max-drop", "0.4", "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert "Chosen because it is the smallest of" in printed.out
    assert "On 60 rows that no choice of a try has seen" in printed.out
    assert "after, in integers" in printed.out
    assert "All tries: " in printed.out
    assert "60 are to select by and 60 to report on" in printed.err
    # The sizes to come are said, and come.
    said = re.search(r": 8 bits, learning rate 1e-05, 2 epochs, about (.+?) MB; 4\.00 bits a weight, (.+)", printed.err)
    coded = re.search(r"unused words dropped, .*, about (.+?) MB", said[2])
    sizes = [float(size) for size in re.findall(r": score [\d.]+, ([\d.]+) MB", printed.err)]
    for ahead, off in ((float(said[1]), 0.02), (float(coded[1]), 0.15)):  # a rate is not learned in ten steps
        assert min(abs(ahead - size) / size for size in sizes) <= off, (ahead, sizes)
    # One is at its place before the other has ended.
    assert printed.err.index("  the best so far, at ") < printed.err.rindex(": score ")
    assert (tmp_path / "small.search" / "report.html").is_file()


def test_late_tries_are_stopped_once_there_is_a_winner_and_go_on_another_time(
    tuned, files, tmp_path, capsys, monkeypatch
):
    """One after the other, so that the second has not ended with the first."""
    monkeypatch.setattr(fitting, "LATE", 1.0)
    monkeypatch.setattr("multipress.budget.tries.default_workers", lambda: 1)
    out = tmp_path / "small"
    command = ["compress", tuned, *options(files), "--max-mb", "0.06", "-o", str(out)]

    def states():
        runs = Store(tmp_path / "small.search" / "runs").runs()
        return sorted(run.state for run in runs if run.spec["kind"] == "train")

    assert main(command) == 0
    printed = capsys.readouterr()
    over = "The 0 s are over: the round of tries that runs goes on to its end"
    assert f"{over} or until a try keeps to the budget." in printed.err
    assert "How the search ended: Its time was over. The same command goes on" in printed.out
    assert states() == ["done", "pending"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert f"At {out} is the best of an earlier search: " in printed.err
    assert f"{over}." in printed.err
    assert states() == ["done", "done"]


def test_a_search_that_is_stopped_says_what_lies_there_and_goes_on_also_after_a_kill(
    tuned, files, tmp_path, capsys, monkeypatch
):
    """Stopped in a search after one that ended, with the model still where a kill between two renames leaves it."""
    out = tmp_path / "small"
    command = ["compress", tuned, *options(files), "--max-mb", "0.06", "-o", str(out)]

    def stop(*others, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "Search", stop)
        assert main(command) == 130
    assert "Stopped. Nothing keeps to the budget yet. The same command goes on." in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "compare", stop)
        assert main(command) == 130
    assert f"Stopped. The best so far is at {out}. The same command goes on." in capsys.readouterr().err
    best = (out / "model.safetensors").read_bytes()
    out.rename(tmp_path / "small.search" / "replaced")
    with monkeypatch.context() as patched:
        patched.setattr(fitting.Search, "run", stop)
        assert main(command) == 130
    assert f"The best so far is at {out}." in capsys.readouterr().err  # it was chosen for the same rows and fits
    assert (out / "model.safetensors").read_bytes() == best
    with monkeypatch.context() as patched:
        patched.setattr(fitting.Search, "run", stop)
        assert main([*command[: command.index("--max-mb")], "--max-mb", "0.02", "-o", str(out)]) == 130
    assert f"At {out} is what lay there before, maybe of other limits." in capsys.readouterr().err


def test_a_limit_that_no_try_keeps_names_the_nearest_and_leaves_nothing(tuned, files, tmp_path, capsys):
    out, dev = tmp_path / "small", tmp_path / "dev.jsonl"
    lines = (files / "dev.jsonl").read_text().splitlines()
    wrong = [line.replace("LOST", "HERE") if number % 10 == 0 else line for number, line in enumerate(lines)]
    dev.write_text("\n".join(wrong) + "\n")
    command = ["compress", tuned, *options(files), "--max-mb", "0.04", "--min-score", "1", "-o", str(out)]
    command[command.index("--dev") + 1] = str(dev)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "No try keeps to the budget with a score of 1.0000 or more. The nearest: " in said
    assert "Allow a lower score, or more time" in said
    assert not out.exists()


def test_within_a_latency_heads_and_neurons_or_layers_go(tuned, files, tmp_path, capsys, monkeypatch):
    """As long as integers take for the whole model, but for a few percent."""
    whole = 1.0
    monkeypatch.setattr("multipress.budget.tries.encoder_milliseconds", lambda config, length: whole)
    monkeypatch.setattr("multipress.budget.tries.Tries.latency", lambda self, artifact: 0.5)
    out = tmp_path / "small"
    command = ["compress", tuned, *options(files), "--max-ms", "0.6", "-o", str(out), "--json"]
    assert main(command) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert "In 8 bits the model takes about 1.00 ms for one text of 16 tokens; the limit is 0.6 ms." in printed.err
    assert told["meets_budget"] == (told["latency_alone_ms"] <= 0.6)
    config = json.loads((out / "config.json").read_text())
    assert config["num_hidden_layers"] == 1 or "% of the heads" in told["recipe"]
    # What is timed is computed in integers, fastest with scales that the training fixed.
    assert "activations with fixed scales" in told["recipe"]
    assert all(scale > 0 for scale in config["quantization_config"]["activation_scales"].values())


def test_without_labels_the_score_is_an_agreement_and_the_warning_stays(tuned, files, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(texts_of(files / "train.jsonl")) + "\n")
    out = tmp_path / "small"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        mp.compress(tuned, unlabeled=str(texts), out=out, max_mb=0.06, max_length=16, epochs=2, minutes=0.001)
    assert any("not how often it is right" in str(one.message) for one in warned)
    told = json.loads((tmp_path / "small.search" / "result.json").read_text())
    assert not told["is_labeled"]
    assert told["rows"][0]["score"] == 1.0
    card = (out / "README.md").read_text()
    assert "agreement with the model before" in card
    assert "accuracy" not in card


@pytest.mark.parametrize("kind", ["swapped", "one class", "inside", "no model"])
def test_what_cannot_be_used_is_refused_before_anything_is_trained(tuned, files, tmp_path, capsys, kind):
    train, dev = (tmp_path / f"{name}.jsonl" for name in ("train", "dev"))
    rows = {
        name: [json.loads(line) for line in (files / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "dev")
    }
    model = tuned
    if kind == "swapped":
        other = {"LOST": "HERE", "HERE": "LOST"}
        rows = {name: [row | {"label": other[row["label"]]} for row in part] for name, part in rows.items()}
    elif kind == "one class":
        rows = {name: [row | {"label": "LOST"} for row in part] for name, part in rows.items()}
    elif kind == "inside":
        rows["dev"] = rows["train"][:100]
    else:
        model = str(files)
    for path, part in zip((train, dev), rows.values(), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
    out = tmp_path / "small"
    assert (
        main(["compress", model, "--train", str(train), "--dev", str(dev), *QUICK, "--max-mb", "1", "-o", str(out)])
        == 2
    )
    said = capsys.readouterr().err.strip().splitlines()[-1]
    expected = {
        "swapped": "Its labels and those of the rows are not in the same order",
        "one class": "class",
        "inside": "also in train",
        "no model": str(files),
    }
    assert expected[kind] in said
    assert not out.exists()
    assert not list(tmp_path.glob("small.search/runs/*/attempt-*"))
