"""Rounds of iterative pruning of a translator: biases too, the learning rate rewound, weights rewound in one round."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from multipress import train as loop
from multipress.analysis import read_cells
from multipress.artifact import open_artifact
from multipress.engines.execute import Executor, read_measurements
from multipress.engines.job import Places
from multipress.errors import SpecError
from multipress.methods import Context, build_method
from multipress.plan import Plan
from multipress.recipe import Recipe
from multipress.spec import DataSpec, RunSpec, StudySpec, TicketSpec, TrainingSpec
from multipress.store import Store
from multipress.study_file import read_study
from tiny import parallel_rows, tiny_translator

MODEL = "transformer-l1-h32-v300"
STUDIES = Path(__file__).parents[1] / "studies"
TRAINING = TrainingSpec(epochs=2, learning_rate=3e-3, batch_tokens=160, max_length=16, schedule="inverse_sqrt")
ROUNDS = TicketSpec(
    rounds=2, share=0.4, rate_to=(0.5,), weight_rounds=(2,), at=0.25, importance=("magnitude", "random")
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
    cells = plan.cells({(MODEL, data): 3e-3})
    store = Store(folder / "runs")
    executor = Executor(store, Places())
    for job in plan.with_needs(cells):
        store.register(job.run_id, job.record)
        executor.execute(job.run_id, job.spec)
    names = ("dense", "first", "weights", "second", "first random", "second random")
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


def test_rewound_weights_are_under_the_masks_of_the_other_rounds(tickets):
    store, cells = tickets
    assert cells["weights"].spec.mask_from == cells["second"].spec.mask_from == cells["first"].run_id
    source, share = cells["weights"].spec.start.split("@")
    assert share == "0.25"
    assert "model.shared.weight" in load_file(store.done(source) / "kept-0.25.safetensors")
    one, other = weights_of(tickets, "weights")[1], weights_of(tickets, "second")[1]
    pruned = weights_of(tickets, "second")[0].facts["pruned"]
    assert all(np.array_equal(one[key] == 0, other[key] == 0) for key in pruned)


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
