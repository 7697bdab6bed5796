"""Rounds of pruning from rows alone: which cells are rounds, and what each is held against."""

import numpy as np
import pytest

from multipress.analysis import Outcome, analyze_cells, read_cells
from multipress.analysis.tickets import ticket_rounds


def row(run_id, sparsity=None, mask_from="", *, importance="magnitude", rewound=False, seed=0, score=0.5, **settings):
    own = {"sparsity": sparsity, "importance": importance, **settings}
    found = {
        "run_id": run_id, "model": "m", "task": "t", "seed": seed, "state": "done", "score": score,
        "methods": [] if sparsity is None else ["pruning"], "settings": {} if sparsity is None else {"pruning": own},
        "metrics": {} if sparsity is None else {"sparsity": sparsity / 2, "sparsity_prunable": sparsity},
        "data": {}, "training": {},
    }  # fmt: skip
    return found | ({"mask_from": mask_from} if mask_from else {}) | ({"rewound": True} if rewound else {})


def rounds(*rows):
    return {one["run_ids"][0]: one for one in ticket_rounds(read_cells(rows))}


def test_pruning_at_once_is_no_round_and_does_not_shift_their_numbers():
    found = rounds(row("d"), row("a", 0.2, "d"), row("b", 0.36, "a"), row("once", 0.3))
    assert {run_id: one["round"] for run_id, one in found.items()} == {"d": 0, "a": 1, "b": 2}
    assert rounds(row("d"), row("once", 0.3)) == {}
    assert list(rounds(row("d"), row("a", 0.2, "d"))) == ["d", "a"]  # one round alone


def test_zeros_at_random_are_those_of_the_same_way_or_there_are_none():
    weights = {"rewound": True}
    both = [row("d"), row("a", 0.2, "d", score=0.4), row("w", 0.2, "d", score=0.45, **weights)]
    random = {"importance": "random"}
    found = rounds(*both, row("r", 0.2, "d", score=0.1, **random))
    assert found["a"]["less_random"] == pytest.approx(0.3)
    assert found["w"]["less_random"] is None  # the control with its rate rewound is another training
    of_weights = row("rw", 0.2, "d", score=0.2, **random, **weights)
    found = rounds(*both, row("r", 0.2, "d", score=0.1, **random), of_weights)
    assert (found["a"]["less_random"], found["w"]["less_random"]) == pytest.approx((0.3, 0.25))
    assert found["w"]["rewind"] == "weights"
    only = rounds(row("d"), row("w", 0.2, "d", **weights), row("rw", 0.2, "d", score=0.2, **random, **weights))
    assert only["w"]["less_random"] == pytest.approx(0.3)


def test_each_round_is_held_against_the_same_training_with_nothing_pruned():
    none, weights = {"importance": "none"}, {"rewound": True}
    rows = [row("d"), row("a", 0.2, "d", score=0.4), row("b", 0.36, "a", score=0.3)]
    rows += [row("wa", 0.2, "d", score=0.2, **weights), row("wb", 0.36, "a", score=0.1, **weights)]
    alone = rounds(*rows)
    assert {one["less_unpruned"] for one in alone.values()} == {None}
    rows += [row("na", 0.0, "d", score=0.6, **none), row("nb", 0.0, "na", score=0.7, **none)]
    found = rounds(*rows)
    assert (found["a"]["less_unpruned"], found["b"]["less_unpruned"]) == pytest.approx((-0.2, -0.4))
    assert found["wb"]["less_unpruned"] is None  # another training
    found = rounds(*rows, row("nw", 0.0, "d", score=0.9, **none, **weights))
    assert [found[name]["less_unpruned"] for name in ("wa", "wb")] == pytest.approx([-0.7, -0.8])
    assert [found[name]["less_unpruned"] for name in ("d", "na", "nw")] == [None] * 3
    assert found["a"]["change"] == pytest.approx(-0.1)  # against the dense run, no round of nothing


def test_two_schedules_in_one_folder_are_two_ways_each_with_its_control():
    random = {"importance": "random"}
    rows = [row("d"), row("a", 0.2, "d", score=0.45), row("a2", 0.36, "a", score=0.4), row("b", 0.5, "d", score=0.3)]
    rows += [row("ra", 0.2, "d", score=0.4, **random), row("rb", 0.5, "d", score=0.1, **random)]
    found = rounds(*rows, row("n", 0.0, "d", score=0.5, importance="none"))
    assert (found["a"]["less_random"], found["b"]["less_random"]) == pytest.approx((0.05, 0.2))
    assert (found["a"]["less_unpruned"], found["b"]["less_unpruned"]) == pytest.approx((-0.05, -0.2))
    shown = {run_id: one["settings"] for run_id, one in found.items()}
    assert shown == {
        "d": "", "n": "", "a": "share=0.2", "a2": "share=0.2", "b": "share=0.5", "ra": "share=0.2", "rb": "share=0.5"
    }  # fmt: skip


def test_of_two_controls_that_differ_unseen_none_is_taken():
    twins = [row(name, 0.2, "d", score=score, importance="random") for name, score in (("r", 0.1), ("s", 0.3))]
    found = rounds(row("d"), row("a", 0.2, "d"), *twins)
    assert found["a"]["less_random"] is None


def test_ways_that_differ_in_a_setting_are_not_averaged_as_seeds():
    found = rounds(row("d"), row("a", 0.2, "d", biases=True), row("b", 0.2, "d", biases=False))
    assert [one["seeds"] for one in found.values()] == [1, 1, 1]
    assert {one["settings"] for one in found.values()} == {"", "biases=True", "biases=False"}


def test_seeds_are_averaged_and_differences_are_of_those_that_both_have():
    rows = [row("d0", score=0.5), row("d1", score=0.7, seed=1), row("a0", 0.2, "d0", score=0.4)]
    found = rounds(*rows, row("a1", 0.2, "d1", score=0.5, seed=1))
    assert (found["d0"]["seeds"], found["a0"]["seeds"]) == (2, 2)
    assert found["a0"]["change"] == pytest.approx(-0.15)
    alone = rounds(*rows)
    assert alone["a0"]["change"] == pytest.approx(-0.1)
    assert alone["a0"]["change_interval"] is None


def test_without_the_dense_run_there_is_no_change_and_rounds_are_told():
    found = rounds(row("a", 0.2, "gone", score=0.4), row("b", 0.36, "a"))
    assert [one["round"] for one in found.values()] == [1, 2]
    assert found["a"]["change"] is None


COMPARED = ("interactions", "mixed_model", "intervals", "shapley", "priority", "multiplicativity")


def ticket_rows(dense):
    """Two rounds and a control of each dense run, as `Store.cells` gives them."""
    found = []
    for one in dense:
        last = one["run_id"]
        for number, sparsity in enumerate((0.2, 0.36), 1):
            settings = {"pruning": {"sparsity": sparsity}}
            made = {**one, "run_id": f"{one['run_id']}-{number}", "methods": ["pruning"], "settings": settings}
            made |= {"mask_from": last, "score": one["score"] + 0.01 * number, "weights_bytes": 40.0}
            found += [made, {**made, "run_id": f"{made['run_id']}w", "rewound": True}]
            last = made["run_id"]
    return found


def test_rounds_are_in_no_comparison_of_equal_training_but_in_all_tables(row):
    levels = ({}, {"quantization": 8}, {"pruning": 0.5}, {"quantization": 8, "pruning": 0.5})
    grid = [row(seed=seed, levels=one, score=0.9 - 0.02 * len(one) - 0.003 * seed) for seed in (0, 1) for one in levels]
    dense = [one for one in grid if not one["methods"]]
    outcome = Outcome(9, lambda rows: rows.mean(axis=1) / 9)
    rows = [*grid, *ticket_rows(dense)]
    outcomes = dict.fromkeys((one["run_id"] for one in rows), outcome)
    alone, found = analyze_cells(grid, outcomes, 20), analyze_cells(rows, outcomes, 20)
    assert {key: found[key] for key in COMPARED} == {key: alone[key] for key in COMPARED}
    assert found["interactions"]
    assert found["intervals"]["rows"]
    assert len(found["cells"]) == len(rows)
    assert len(found["groups"]) == len(alone["groups"]) + 4
    assert [one["round"] for one in found["rounds"]] == [0, 1, 2, 1, 2]
    assert any(np.isclose(one["bytes"], 40) for one in found["frontier"]["weights_bytes"])


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_folder_with_rounds_alone_is_analyzed(row, state):
    dense = [row(seed=seed) for seed in (0, 1)]
    found = analyze_cells([*(one | {"state": state} for one in dense), *ticket_rows(dense)])
    assert found["interactions"] == found["intervals"]["rows"] == found["shapley"] == []
    assert found["multiplicativity"]["rows"] == found["priority"]["steps"] == []
    assert len(found["rounds"]) == (5 if state == "done" else 4)
    assert analyze_cells(ticket_rows(dense))["rounds"]
