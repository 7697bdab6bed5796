"""What the sentences say, on small analyses whose answer is known."""

import pytest

from multipress.analysis import Drop, analyze_cells
from multipress.analysis.verdict import verdict

P60 = {"pruning": 0.6}


@pytest.fixture
def rows(row):
    return [row(score=0.9, size=100.0), row(levels=P60, score=0.893, size=50.0)]


def test_the_smallest_is_the_one_within_the_drop_that_was_asked_for(rows):
    for drop, starts in (
        (Drop(0.005), "Nothing smaller stays within 0.005 of the best dense score on t (m)."),
        (Drop(0.01), "Smallest within 0.01 of the best dense score on t: m with P60"),
        (Drop(0.0077, is_relative=True), "Nothing smaller stays within 0.77 % of the best dense score on t (m)."),
        (Drop(0.0079, is_relative=True), "Smallest within 0.79 % of the best dense score on t: m with P60"),
    ):
        assert verdict(analyze_cells(rows, drop=drop))[0].startswith(starts)


def test_what_some_task_lacks_is_counted_and_in_no_mean(rows, row):
    rows += [row(task="u", score=0.8, size=100.0)]
    first = verdict(analyze_cells(rows, drop=Drop(0.01)))[0]
    assert first.startswith("Nothing smaller stays within 0.01 of the best dense score on the mean of 2 tasks (m).")
    assert first.endswith(" 1 combination of a model and methods is not done on every task, and in no mean over tasks.")
    assert "combination" not in verdict(analyze_cells(rows[:2]))[0]
