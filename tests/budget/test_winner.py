"""The table in the end: three models, one of them computed in two ways, on rows that no choice has seen."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from typer.main import get_command

from multipress.artifact import open_artifact
from multipress.budget import winner
from multipress.budget.asked import Asked
from multipress.budget.limits import Budget
from multipress.budget.rows import SearchRows
from multipress.budget.told import command_of, missed_limits, only_guesses
from multipress.budget.winner import NAMES, compare, winners_card
from multipress.cli.main import app
from multipress.measure.intervals import change_interval, score_interval
from multipress.measure.rival import rival_model
from multipress.runtime import Predictor
from multipress.spec import DataSpec
from multipress.tasks import Split, Task

TASK = Task("text", "classes", ("bad", "fair", "good"), ("accuracy", "macro_f1"), "accuracy")
MODEL = {
    "model": "m",
    "seed": 0,
    "methods": [{"name": "quantization", "settings": {"bits": 3}}],
    "training": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8},
}


@pytest.fixture(scope="module")
def compared(write_tiny, tmp_path_factory):
    """A tiny model, the same in 3 bits, and rows that the first is mostly right on, a tenth of them seen before."""
    folder = tmp_path_factory.mktemp("compared")
    before, after = (write_tiny(folder / f"{bits}", bits=bits, spec=MODEL) for bits in (16, 3))
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.integers(55, size=5)) for _ in range(120)]
    labels = Predictor(before).logits(texts).argmax(axis=1)
    labels[::7] = (labels[::7] + 1) % 3
    shared = np.arange(120) % 10 == 0
    rows = SearchRows(DataSpec(), TASK, Split(texts, None, labels), Split(texts, None, labels), shared, 500)
    return before, after, rows, compare(before.folder, after.folder, rows, 12_345)


def test_each_row_is_that_model_on_those_rows(compared):
    before, after, rows, found = compared
    texts, labels = rows.report.texts, rows.report.labels
    logits = {
        "before": Predictor(before).logits(texts),
        "after": Predictor(after).logits(texts),
        "after, in integers": Predictor(after, precision="int8").logits(texts),
    }
    assert tuple(row.name for row in found.rows) == NAMES
    by_name = {row.name: row for row in found.rows}
    for name, values in logits.items():
        assert by_name[name].score == np.mean(values.argmax(axis=1) == labels)
        assert (by_name[name].low, by_name[name].high) == score_interval(TASK, values, labels)
    assert by_name["before"].package_bytes == 12_345
    assert by_name["after"].package_bytes == by_name["after, in integers"].package_bytes == after.package_bytes
    tokenizer = sum(
        record["bytes"] for name, record in before.manifest["files"].items() if name.startswith("tokenizer")
    )
    assert by_name["dynamic int8 of before"].package_bytes == len(rival_model(before)) + tokenizer
    low, high = change_interval(TASK, logits["before"], logits["after"], labels)
    assert f"({100 * low:+.2f} to {100 * high:+.2f})" in found.change
    old, new = (logits[name].argmax(axis=1) for name in ("before", "after"))
    assert f"{np.mean(old == new):.2%} of 120 rows agree" in found.change
    unseen = ~rows.shared
    assert found.unseen == (np.mean((old == labels)[unseen]), np.mean((new == labels)[unseen]), 108)
    for index, name in enumerate(TASK.labels):
        own = labels == index
        assert found.recall[name] == (np.mean(old[own] == index), np.mean(new[own] == index))
    fallen = [after - before for _, before, after in found.worst_classes()]
    assert fallen == sorted(fallen)
    assert all(change < 0 for change in fallen)
    table = found.table()
    assert all(name in table for name in NAMES)
    assert "ms, 1 x 16" in table
    assert "accuracy" in table


def test_examples_are_where_both_differ_the_surest_first(compared):
    before, after, rows, found = compared
    texts = rows.report.texts
    old, new = (Predictor(model).logits(texts) for model in (before, after))
    assert len(found.examples) == winner.EXAMPLES
    leads = []
    for example in found.examples:
        row = texts.index(example["text"])
        assert example["before"] == TASK.labels[old[row].argmax()] != example["after"]
        assert example["after"] == TASK.labels[new[row].argmax()]
        assert example["label"] == TASK.labels[rows.report.labels[row]]
        leads.append(new[row].max() - new[row, old[row].argmax()])
    differ = old.argmax(axis=1) != new.argmax(axis=1)
    every = new.max(axis=1) - new[np.arange(len(new)), old.argmax(axis=1)]
    assert leads == sorted(every[differ].tolist(), reverse=True)[: winner.EXAMPLES]


def test_latencies_belong_to_their_models(compared, monkeypatch):
    before, after, rows, _ = compared

    def timed(sessions, shapes, words, *, threads, repeats):
        assert list(sessions) == list(NAMES)
        assert len({id(session) for session in sessions.values()}) == len(NAMES)
        return {(name, shapes[0]): np.array([1.0, 2.0, 90.0]) + i for i, name in enumerate(NAMES)}

    monkeypatch.setattr(winner, "time_in_turns", timed)
    found = compare(before.folder, after.folder, rows, 1)
    assert [row.latency_ms for row in found.rows] == [2.0, 3.0, 4.0, 5.0]


def test_the_card_has_the_scores_of_the_rows_to_report_on(compared):
    _, after, _, found = compared
    card = winners_card(open_artifact(after.folder), found, "multipress compress m", "mine", "Found by a search.")
    assert f"| accuracy (120 rows) | {found.rows[2].score:.4f} |" in card
    assert f"type: accuracy, value: {found.rows[2].score:.6f}" in card
    assert "before (the model before) and after" in card
    assert "Found by a search." in card
    for row, words in (
        (found.rows[2], ", 95 % interval | "),
        (found.rows[3], f' in integers: `precision="int8"` | {found.rows[3].score:.4f}, '),
    ):
        assert f"| accuracy{words}{row.low:.4f} to {row.high:.4f} |" in card
    for row, words in ((found.rows[2], ") | "), (found.rows[3], ', in integers: `precision="int8"`) | ')):
        assert re.search(rf"latency, 1 x 16 tokens .*{re.escape(words)}{row.latency_ms:.2f} ms", card)


def test_without_true_labels_there_is_no_accuracy_anywhere(compared):
    before, after, rows, _ = compared
    found = compare(before.folder, after.folder, rows, 1, is_labeled=False)
    assert "agreement" in found.table().splitlines()[0]
    card = winners_card(open_artifact(after.folder), found, "multipress compress m", "mine", "Found by a search.")
    assert f"| agreement with the model before, on 120 texts without labels | {found.rows[2].score:.4f} |" in card
    for word in ("accuracy", "macro_f1", "model-index", "of the model before", "Recall"):
        assert word not in card


def test_what_of_the_budget_is_missed_is_said_with_both_numbers(compared):
    found = compared[3]
    before, rival, floats, integers = found.rows
    slow = replace(
        found,
        rows=[
            replace(before, score=0.9),
            rival,
            replace(floats, score=0.85),
            replace(integers, score=0.8, latency_ms=3.0),
        ],
    )
    assert missed_limits(slow, Budget(max_mb=1)) == ()
    assert missed_limits(slow, Budget(max_drop=0.06)) == ()
    assert missed_limits(slow, Budget(max_drop=0.04)) == ("the score is 0.8500, not 0.8600",)
    assert missed_limits(slow, Budget(max_drop=0.06, max_ms=5)) == ("the score is 0.8000, not 0.8400",)
    assert missed_limits(slow, Budget(min_score=0.8, max_ms=2.5), 2.6) == ("one text takes 2.60 ms, not 2.5",)
    assert missed_limits(slow, Budget(min_score=0.8, max_ms=2.5), 2.4) == ()
    exact = replace(slow, rows=[replace(before, score=0.05), rival, replace(floats, score=0.03), integers])
    assert missed_limits(exact, Budget(max_drop=0.02)) == ()  # .05 - .02 is more than .03 in floats


def test_a_model_that_only_guesses_is_told(compared):
    rows, found = compared[2], compared[3]
    most = np.bincount(rows.report.labels).max() / 120

    def scoring(score):
        return replace(found, rows=[*found.rows[:2], replace(found.rows[2], score=score), found.rows[3]])

    assert only_guesses(scoring(most), rows)
    assert not only_guesses(scoring(most + 0.01), rows)
    assert not only_guesses(scoring(most), replace(rows, task=replace(TASK, score="macro_f1")))


def test_the_command_on_the_card_asks_for_the_same_again(compared, tmp_path):
    """Read back by the program itself; of files and folders the names alone."""
    (tmp_path / "m").mkdir()
    data = DataSpec(
        train="a/train.csv", dev="b/dev file.csv", text=("one", "my column"), label="a/b", target="number",
        metric="pearson", max_train_rows=1_000_000, max_eval_rows=8,
    )  # fmt: skip
    asked = Asked(str(tmp_path / "m"), data, "c/test.csv", 64, 3, learn_from=("x/runs", "y/small.search"))
    words = shlex.split(command_of(asked, Budget(max_mb=1.2345678, max_ms=2, max_drop=0.5, minutes=3)))
    assert words[:2] == ["multipress", "compress"]
    given = get_command(app).commands["compress"].make_context("compress", words[2:]).params
    said = {name: value for name, value in given.items() if value not in (None, "", 0, False, [], ())}
    assert said == {
        "model": "m", "out": "OUT", "train_file": "train.csv", "dev_file": "dev file.csv", "test_file": "test.csv",
        "text": ("one", "my column"), "label": "a/b", "target": "number", "metric": "pearson", "max_mb": 1.2345678,
        "max_ms": 2.0, "max_drop": 0.5, "time_limit": 3.0, "epochs": 3, "max_length": 64,
        "learn_from": ("runs", "small.search"), "max_train_rows": 1_000_000, "max_eval_rows": 8,
    }  # fmt: skip
    texts = shlex.split(command_of(Asked("org/name", DataSpec(), unlabeled="x/texts.txt"), Budget(max_mb=1)))
    assert texts[2:5] == ["org/name", "--unlabeled", "texts.txt"]
    assert json.loads(json.dumps(compared[3].to_json()))["num_rows"] == 120
