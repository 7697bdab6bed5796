"""Rounds of iterative pruning of a translator: biases too, the learning rate rewound, weights rewound in one round."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from multipress import train as loop
from multipress.analysis import analyze_cells, read_cells
from multipress.artifact import open_artifact
from multipress.cli.main import main
from multipress.engines.execute import Executor, read_measurements
from multipress.engines.identity import identity_of
from multipress.engines.job import Places
from multipress.errors import SpecError
from multipress.measure import read_outcome
from multipress.methods import Context, build_method
from multipress.models.pretrained import identify
from multipress.plan import Plan
from multipress.recipe import Recipe
from multipress.spec import DataSpec, RunSpec, StudySpec, TrainingSpec
from multipress.store import Store
from multipress.study_file import read_study
from multipress.tasks import load_task
from multipress.tickets import TicketSpec
from tiny import parallel_rows, tiny_translator

MODEL = "transformer-l1-h32-v300"
STUDIES = Path(__file__).parents[1] / "studies"
TRAINING = TrainingSpec(epochs=2, learning_rate=3e-3, batch_tokens=160, max_length=16, schedule="inverse_sqrt")
ROUNDS = TicketSpec(
    rounds=2, share=0.4, rate_to=(0.5,), weight_rounds=(2,), at=0.25, importance=("magnitude", "random", "none")
)


@pytest.fixture(scope="module")
def tickets(tmp_path_factory):
    """A store with all runs of a small study, and its cells by what they are."""
    folder = tmp_path_factory.mktemp("tickets")
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("dev", 6)):
        rows = [" ".join(random.choice(list("abcdefgh"), 5)) for _ in range(count)]
        (folder / f"{split}.csv").write_text("source,target\n" + "".join(f"{row},{row.upper()}\n" for row in rows))
    data = DataSpec(train=str(folder / "train.csv"), dev=str(folder / "dev.csv"), target="text")
    grid = StudySpec(
        "tickets",
        (MODEL,),
        (data,),
        training=TRAINING,
        learning_rates=(3e-3,),
        subsets=((),),
        tickets=ROUNDS,
        methods={"pruning": {"biases": True}},
    )
    plan = Plan(grid)
    plan.check()
    before = Plan(replace(grid, tickets=replace(ROUNDS, importance=("magnitude", "random"))))
    cells = plan.cells({(MODEL, data): 3e-3})
    assert cells[:7] == before.cells({(MODEL, data): 3e-3})  # a control renames no other run
    store = Store(folder / "runs")
    executor = Executor(store, Places())
    for job in plan.with_needs(cells):
        store.register(job.run_id, job.record)
        executor.execute(job.run_id, job.spec)
    names = ("dense", "first", "weights", "second", "first random", "weights random", "second random")
    names += ("unpruned weights", "first unpruned", "second unpruned")
    return store, dict(zip(names, cells, strict=True))


def weights_of(tickets, name):
    store, cells = tickets
    artifact = open_artifact(store.done(cells[name].run_id) / "artifact")
    return artifact, artifact.dense_weights()


@pytest.mark.parametrize(("before", "name", "share"), [("dense", "first", 0.4), ("first", "second", 0.64)])
def test_one_threshold_takes_the_smallest_weights_and_biases_of_all_blocks(tickets, before, name, share):
    artifact, found = weights_of(tickets, name)
    _, last = weights_of(tickets, before)
    ranked = sorted(artifact.facts["pruned"])
    assert {key.rpartition(".")[2] for key in ranked} == {"weight", "bias"}
    assert len(ranked) == 2 * (6 + 10)
    assert not any("norm" in key or "shared" in key for key in ranked)
    gone = np.concatenate([found[key].ravel() == 0 for key in ranked])
    sizes = np.concatenate([np.abs(last[key]).ravel() for key in ranked])
    assert gone.sum() == pytest.approx(share * gone.size, abs=len(ranked))  # few others round to zero as float16
    assert sizes[gone].max() <= sizes[~gone].min() + 1e-7


def test_a_round_has_the_steps_after_where_the_rate_is_rewound_to(tickets):
    _, cells = tickets
    assert cells["first"].spec.part == cells["second"].spec.part == (0.5, 1.0)
    assert cells["first"].spec.rewound
    assert cells["weights"].spec.part == (0.25, 1.0)


def test_all_rounds_have_names_of_their_own(tickets):
    store, cells = tickets
    store.save_study("tickets", {"cells": [job.run_id for job in cells.values()], "spec": {}})
    labels = [cell.label for cell in read_cells(store.cells())]
    assert len(set(labels)) == len(cells), labels


def test_rounds_are_told_with_their_zeros_and_against_as_many_at_random(tickets):
    store, cells = tickets
    store.save_study("tickets", {"cells": [job.run_id for job in cells.values()], "spec": {}})
    outcomes = {job.run_id: read_outcome(store.done(job.run_id)) for job in cells.values()}
    rounds = {row["run_ids"][0]: row for row in analyze_cells(store.cells(), outcomes, 200)["rounds"]}
    names = {cells[name].run_id: name for name in cells}
    told = {names[run_id]: row for run_id, row in rounds.items()}
    assert set(told) == set(cells)
    assert {name: (row["importance"], row["rewind"], row["round"]) for name, row in told.items()} == {
        "dense": ("", "", 0),
        "first": ("magnitude", "rate", 1),
        "second": ("magnitude", "rate", 2),
        "weights": ("magnitude", "weights", 2),
        "first random": ("random", "rate", 1),
        "second random": ("random", "rate", 2),
        "weights random": ("random", "weights", 2),
        "first unpruned": ("none", "rate", 1),
        "second unpruned": ("none", "rate", 2),
        "unpruned weights": ("none", "weights", 1),
    }
    score = {name: row["score"] for name, row in told.items()}
    for name in ("first", "second", "weights"):
        row, control = told[name], f"{name} random"
        assert row["less_random"] == pytest.approx(score[name] - score[control])
        assert row["change"] == pytest.approx(score[name] - score["dense"])
        unpruned = "unpruned weights" if name == "weights" else f"{name} unpruned"
        assert row["less_unpruned"] == pytest.approx(score[name] - score[unpruned])
        assert row["less_unpruned_interval"][0] <= row["less_unpruned"] <= row["less_unpruned_interval"][1]
        # The interval is of the difference on the same rows.
        rows = np.random.default_rng(0).integers(6, size=(4000, 6))
        drawn = outcomes[cells[name].run_id].score_on(rows) - outcomes[cells["dense"].run_id].score_on(rows)
        assert row["change_interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    assert told["dense"]["change"] is told["first random"]["less_random"] is None
    assert told["second"]["sparsity_prunable"] == pytest.approx(0.64, abs=1e-3)
    assert told["dense"]["sparsity"] == told["second unpruned"]["sparsity"] == 0
    assert told["second unpruned"]["sparsity_prunable"] == 0
    assert told["second unpruned"]["less_random"] is told["second unpruned"]["less_unpruned"] is None


def test_rounds_are_on_the_page_and_in_the_terminal_and_zeros_in_the_csv(tickets, tmp_path, capsys):
    store, cells = tickets
    store.save_study("tickets", {"cells": [job.run_id for job in cells.values()], "spec": {}})
    files = {"-o": tmp_path / "page.html", "--csv": tmp_path / "cells.csv"}
    assert main(["report", str(store.folder), *[str(part) for item in files.items() for part in item]]) == 0
    page = files["-o"].read_text()
    assert "Pruned in rounds" in page
    assert 'aria-label="score, in points by zeros, % of what may be pruned"' in page
    rows = list(csv.DictReader(files["--csv"].read_text().splitlines()))
    zeros = sorted(round(float(row["sparsity_prunable"] or 0), 2) for row in rows)
    assert zeros == [0, 0, 0, 0, 0.4, 0.4, 0.64, 0.64, 0.64, 0.64]
    assert sum(bool(row["sparsity"]) for row in rows) == 6
    figure, table = page.split("Pruned in rounds")[1].split("<table")[:2]
    assert "nothing pruned" not in figure.split("<h3>")[1]
    assert "nothing pruned, weights rewound" in table
    assert "less unpruned" in table
    capsys.readouterr()
    assert main(["analyze", str(store.folder)]) == 0
    printed = capsys.readouterr().out
    assert "pruned in rounds" in printed
    assert sum(line.startswith(("dense ", "magnitude", "random ")) for line in printed.splitlines()) >= 6
    assert sum(line.startswith("nothing") for line in printed.splitlines()) == 3
    # Where there is no round with nothing pruned, the bar is the dense run, and is said to be.
    assert "d: less dense" in printed
    assert printed.count(" d ") == 3


def test_rewound_weights_are_under_the_masks_of_the_other_rounds(tickets):
    store, cells = tickets
    assert cells["weights"].spec.mask_from == cells["second"].spec.mask_from == cells["first"].run_id
    source, share = cells["weights"].spec.start.split("@")
    kept = load_file(store.done(source) / f"kept-{share}.safetensors")
    # Those that the dense training has a quarter of the way on, of which no more is trained again.
    assert store.run(source).spec["part"] == [0.0, 0.25]
    whole = replace(cells["dense"].spec, kept=(0.25,))
    model_sha256, data_sha256 = identify(MODEL, None).sha256, load_task(whole.data).sha256
    run_id = identity_of(whole, model_sha256=model_sha256, data_sha256=data_sha256)
    store.register(run_id, whole.to_json())
    Executor(store, Places()).execute(run_id, whole)
    expected = load_file(store.done(run_id) / "kept-0.25.safetensors")
    assert set(kept) == set(expected)
    assert "model.shared.weight" in kept
    assert all(np.array_equal(kept[name], expected[name]) for name in expected)
    one, other = weights_of(tickets, "weights")[1], weights_of(tickets, "second")[1]
    pruned = weights_of(tickets, "second")[0].facts["pruned"]
    assert all(np.array_equal(one[key] == 0, other[key] == 0) for key in pruned)
    # So are those of the control, from the same weights.
    assert cells["weights random"].spec.start == cells["weights"].spec.start
    one, other = weights_of(tickets, "weights random")[1], weights_of(tickets, "second random")[1]
    assert all(np.array_equal(one[key] == 0, other[key] == 0) for key in pruned)


def test_rounds_in_which_nothing_is_pruned_train_on_as_the_others(tickets):
    cells = tickets[1]
    for pruned, unpruned in (("first", "first unpruned"), ("second", "second unpruned")):
        one, other = cells[pruned].spec, cells[unpruned].spec
        assert (other.part, other.rewound, other.training) == (one.part, one.rewound, one.training)
        assert not sum(weights_of(tickets, unpruned)[0].facts["pruned"].values())
    assert cells["second unpruned"].spec.start == cells["first unpruned"].run_id
    rewound, control = cells["weights"].spec, cells["unpruned weights"].spec
    assert (control.start, control.part, control.rewound) == (rewound.start, rewound.part, rewound.rewound)
    last, found = weights_of(tickets, "first unpruned")[1], weights_of(tickets, "second unpruned")[1]
    assert any(np.abs(found[name] - last[name]).max() > 1e-3 for name in found)
    changed = [name for name in found if (found[name] == 0).mean() > 0.01 + (last[name] == 0).mean()]
    assert not changed


def test_rounds_in_which_nothing_is_pruned_change_no_effect_of_the_others(tickets):
    store, cells = tickets
    store.save_study("tickets", {"cells": [job.run_id for job in cells.values()], "spec": {}})
    unpruned = {job.run_id for name, job in cells.items() if "unpruned" in name}
    rows = store.cells()
    every, others = (analyze_cells(found) for found in (rows, [r for r in rows if r["run_id"] not in unpruned]))
    for key in ("interactions", "shapley", "groups"):
        assert [row for row in every[key] if "none" not in str(row)] == others[key], key


def test_sparsity_is_told_of_all_weights_and_of_those_that_are_ranked(tickets):
    store, cells = tickets
    values = {row.name: row.value for row in read_measurements(store.done(cells["second"].run_id))}
    assert values["sparsity_prunable"] == pytest.approx(0.64, abs=1e-3)
    assert values["sparsity"] == pytest.approx(values["num_pruned"] / values["num_parameters"])
    assert values["sparsity"] < values["sparsity_prunable"]
    random = weights_of(tickets, "first random")[0].facts["pruned"]
    assert sum(random.values()) == sum(weights_of(tickets, "first")[0].facts["pruned"].values())
    assert random != weights_of(tickets, "first")[0].facts["pruned"]


@pytest.mark.parametrize("rewound", [False, True])
def test_a_rewound_rate_is_that_of_the_whole_training(monkeypatch, rewound):
    seen = []
    plain = loop.rate_factor

    def recorded(step, total, warmup, schedule):
        seen.append((step, total))
        return plain(step, total, warmup, schedule)

    monkeypatch.setattr(loop, "rate_factor", recorded)
    training = TrainingSpec(epochs=2, batch_tokens=200)
    rows = parallel_rows(20)
    whole = loop.num_steps(rows.lengths, training)
    first = round(whole / 2)
    torch.manual_seed(0)
    loop.train(tiny_translator(layers=1), rows, Recipe([]), training, Context("text"), part=(0.5, 1.0), rewound=rewound)
    count = whole - first
    offset, total = (first, whole) if rewound else (0, count)
    assert seen == [(offset + step, total) for step in range(count)]


def test_a_rewound_run_is_written_and_read_and_others_keep_their_names():
    spec = RunSpec("train", MODEL, DataSpec(task="multi30k"))
    assert "rewound" not in spec.to_json()
    assert "biases" not in build_method("pruning", {"biases": False}).settings()
    assert build_method("pruning", {"biases": True}).settings()["biases"]
    rewound = RunSpec("train", MODEL, DataSpec(task="multi30k"), training=TRAINING, part=(0.5, 1.0), rewound=True)
    assert RunSpec.from_json(rewound.to_json()) == rewound


def test_the_studies_of_the_paper_are_its_rounds():
    for name in ("blackboxnlp2020", "blackboxnlp2020-multi30k"):
        rounds = read_study(STUDIES / f"{name}.toml").tickets
        assert [rounds.part(number)[0] for number in (1, 6, 7, 8)] == [0.5, 0.5, 0.2, 0.2]
        assert (rounds.rounds, rounds.share, rounds.weight_rounds) == (8, 0.2, (4, 8))
    with pytest.raises(SpecError, match="weight_rounds"):
        TicketSpec(rounds=2, weight_rounds=(3,))
    with pytest.raises(SpecError, match="rounds of magnitude"):
        TicketSpec(rounds=2, weight_rounds=(2,), importance=("random",))
    with pytest.raises(SpecError, match="rate_to"):
        TicketSpec(rounds=2, rate_to=(1.0,))
