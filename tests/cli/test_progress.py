"""What a study shows while it runs: lines where there is no terminal, a bar on one."""

import sys

import pytest

from multipress.cli import progress
from multipress.records import Run
from multipress.spec import DataSpec, MethodSpec, RunSpec

SPEC = RunSpec("train", "a[b]c", DataSpec("sst2"), methods=(MethodSpec("pruning"),)).to_json()


def show_runs(show, count, failed):
    for number in range(1, count + 1):
        show.begin(str(number), SPEC)
        run = (
            Run(str(number), SPEC, "failed", why="by\x1b[31m hand")
            if number == failed
            else Run(str(number), SPEC, "done")
        )
        show.end(run, number, count, None if number == failed else 0.5)


def test_lines_are_few_but_failures_and_the_last_are_always_there(capsys):
    with progress.Runs() as show:
        show.note("a note")
        show_runs(show, 500, failed=250)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a note"
    assert lines[1].startswith("[1/500] done train a[b]c sst2 pruning seed 0 score 0.5000 (")
    assert "[250/500] failed train a[b]c sst2 pruning seed 0 by" in lines[2]
    assert "\x1b" not in lines[2]
    assert "248 more before it" in lines[2]
    assert lines[-1].startswith("[500/500] done")
    assert len(lines) < 10


def test_a_terminal_shows_what_runs_what_failed_and_how_long_it_takes(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "320")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.Runs() as show:
        show_runs(show, 3, failed=2)
        for number in range(6):
            show.begin(f"more {number}", SPEC)
        show._bar.refresh()
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "1 failed, 6 running: train a[b]c sst2 pruning seed 0; " in shown
    assert "; ..." in shown
    assert "left" in shown


@pytest.mark.parametrize("names", [[], ["pruning"], ["pruning", "quantization"]])
def test_a_recipe_is_named_by_its_methods(names):
    assert progress.recipe_name([{"name": name} for name in names]) == ("+".join(names) or "dense")


def ticket(sparsity, importance="magnitude", **more):
    method = {"name": "pruning", "settings": {"sparsity": sparsity, "importance": importance}}
    return {"methods": [method], "mask_from": "a", "start": "a", "part": [0.5, 1.0], "rewound": True, **more}


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"methods": []}, "dense"),
        ({"methods": [], "part": [0.0, 0.1], "rewound": True, "kept": [1.0]}, "the beginning of dense"),
        ({"methods": [], "part": [0.0, 0.5], "shared": 0.5}, "the shared beginning"),
        (ticket(0.488), "tickets pruned to 0.488"),
        (ticket(0.488, "random"), "tickets pruned to 0.488, at random"),
        (ticket(0.488, start="b@1.0"), "tickets pruned to 0.488, weights rewound"),
        (ticket(0.2, "random", start=""), "tickets pruned to 0.2, at random, weights rewound"),
        (ticket(0.0, "none", before=[[{"name": "pruning"}]]), "tickets, nothing pruned, round 2"),
        (ticket(0.0, "none", start="b@1.0"), "tickets, nothing pruned, weights rewound"),
    ],
)
def test_rounds_of_pruning_and_what_they_begin_with_have_names_of_their_own(spec, name):
    assert progress.stages_name(spec) == name


def test_parts_of_a_work_are_a_line_each_and_one_every_so_often(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress.Parts() as show:
        for name in ("first \x1b", "second"):
            for done in range(6):
                show(name, done, 5)
    assert capsys.readouterr().err.splitlines() == ["first \ufffd", "first \ufffd, 4 of 5", "second", "second, 4 of 5"]


def test_a_terminal_shows_the_part_that_is_done_now(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.Parts() as show:
        show("a[b]", 1, 4)
        show("c[d]", 2, 3)
    shown = capsys.readouterr().err
    assert "c[d]" in shown
    assert "2/3" in shown


def test_rounds_of_a_search_are_a_line_each_or_what_is_tried_now(monkeypatch, capsys):
    with progress.Rounds() as show:
        show.begin("Trying 8 \x1b bits")
        show.note("8 bits: score 0.9")
    assert capsys.readouterr().err.splitlines() == ["Trying 8 \ufffd bits", "8 bits: score 0.9"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.Rounds() as show:
        show.begin("Trying a[b]")
        show.note("a[b]: score 0.5")
        show.begin("Trying c[d]")
        show._bar.refresh()
    shown = capsys.readouterr().err
    assert "a[b]: score 0.5" in shown
    assert "Trying c[d]" in shown
    assert "0:00:0" in shown
