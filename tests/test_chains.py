"""Chains of runs: a shared beginning, methods one after another, rounds of iterative pruning."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from multipress import train
from multipress.analysis import read_cells
from multipress.artifact import open_artifact
from multipress.engines.execute import Executor
from multipress.engines.job import Places
from multipress.errors import SettingError, SpecError
from multipress.methods import Context
from multipress.models import load_pretrained
from multipress.models.encoder import drop_positions
from multipress.plan import Plan, expand_chains
from multipress.recipe import Recipe
from multipress.records import Run
from multipress.runtime.tokenizer import TextEncoder
from multipress.spec import DataSpec, StudySpec, TrainingSpec
from multipress.store import Store, cell_row
from multipress.study import run_study
from multipress.study_file import parse_study
from multipress.tasks import load_task
from multipress.tickets import TicketSpec

DATA = DataSpec(task="banking77", max_train_rows=24, max_eval_rows=20)
TRAINING = TrainingSpec(epochs=4, learning_rate=1e-3, batch_size=8, max_length=12)  # 12 steps
PRUNING = {"sparsity": 0.5, "updates": 2, "start": 0.1, "end": 0.5}


def study(folder, **changes):
    grid = StudySpec(name="chains", models=(str(folder),), data=(DATA,), training=TRAINING, learning_rates=(1e-3,))
    return replace(grid, **changes)


def zeros(store, run_id):
    """By name, where a pruned matrix of a run's artifact is zero."""
    artifact = open_artifact(store.done(run_id) / "artifact")
    return {name: artifact.dense_weights()[name] == 0 for name, count in artifact.facts["pruned"].items() if count}


def steps(store, run_id):
    lines = (store.done(run_id) / "log.jsonl").read_text().splitlines()
    return json.loads(lines[-2])["step"]


@pytest.fixture(scope="module")
def chains(tiny_folder, tmp_path_factory):
    """Every order of pruning and quantization, after a beginning that all have in common."""
    store = Store(tmp_path_factory.mktemp("chains"))
    grid = study(
        tiny_folder,
        shared_start=1 / 3,
        subsets=(
            ("pruning", "quantization"),
            (("pruning",), ("quantization",)),
            (("quantization",), ("pruning", "quantization")),
            (("distillation",), ("pruning",), ("quantization",)),
        ),
        methods={"pruning": PRUNING},
    )
    cells = run_study(grid, store.folder, num_workers=1)
    assert [cell.state for cell in cells] == ["done"] * 5
    return grid, store, cells


def stages_of(store, cell):
    """The runs of a cell, the last one first."""
    runs = [cell]
    while runs[-1].spec.get("start"):
        runs.append(store.run(runs[-1].spec["start"]))
    return runs


def test_all_cells_have_one_beginning_in_common_and_the_same_number_of_steps(chains):
    _, store, cells = chains
    beginnings = {stages_of(store, cell)[-1].run_id for cell in cells}
    assert len(beginnings) == 1
    assert store.run(beginnings.pop()).spec["methods"] == []
    assert [sum(steps(store, run.run_id) for run in stages_of(store, cell)) for cell in cells] == [12] * 5
    assert [len(stages_of(store, cell)) for cell in cells] == [2, 2, 3, 3, 4]


def test_a_later_stage_begins_with_the_weights_and_keeps_the_zeros_of_the_one_before(chains):
    _, store, cells = chains
    pruned_first = stages_of(store, cells[2])
    before, after = zeros(store, pruned_first[1].run_id), zeros(store, pruned_first[0].run_id)
    assert before
    share = sum(mask.sum() for mask in before.values()) / sum(mask.size for mask in before.values())
    assert share == pytest.approx(0.5, abs=0.01)
    for name, mask in before.items():
        assert not (mask & ~after[name]).any(), name
    weights = open_artifact(store.done(cells[2].run_id) / "artifact")
    assert weights.facts["quantization"]["bits"] == 8
    assert sum(weights.facts["pruned"].values()) == sum(
        open_artifact(store.done(pruned_first[1].run_id) / "artifact").facts["pruned"].values()
    )


def test_stages_go_on_in_the_rows_where_the_last_one_ended(tiny_folder, monkeypatch):
    """Together they see what one training sees, in its order."""
    seen = []
    real = train.collate
    monkeypatch.setattr(train, "collate", lambda rows, batch: seen.append(batch.tolist()) or real(rows, batch))
    data = load_task(DATA)
    rows = None

    def trained(part):
        nonlocal rows
        model = load_pretrained(str(tiny_folder), label_names=data.task.labels, seed=0)
        encoder = TextEncoder(model.tokenizer_json, 12)
        rows = train.Rows(encoder.encode(data.train.texts), data.train.labels, encoder.pad_id)
        seen.clear()
        train.train(model.model, rows, Recipe([]), replace(TRAINING, epochs=1), Context(), part=part)
        return list(seen)

    whole = trained((0.0, 1.0))
    assert trained((0.0, 0.4)) + trained((0.4, 1.0)) == whole
    assert sorted(row for batch in whole for row in batch) == list(range(24))


def test_a_stage_starts_where_the_last_one_ended(chains, tmp_path, tiny_folder):
    """With a rate of nearly nothing the second stage's weights are the first one's."""
    grid = study(tiny_folder, subsets=(((), ()),), training=replace(TRAINING, learning_rate=1e-3, epochs=2))
    _, cell = Plan(grid).cells({(str(tiny_folder), DATA): 1e-3})
    plan = Plan(grid)
    cells = plan.cells({(str(tiny_folder), DATA): 1e-3})
    first, last = plan.with_needs(cells[1:])
    still = replace(last.spec, training=replace(last.spec.training, learning_rate=1e-12))
    store = Store(tmp_path)
    for run_id, spec in ((first.run_id, first.spec), ("0" * 12, still)):
        store.register(run_id, spec.to_json())
    executor = Executor(store, Places())
    executor.execute(first.run_id, first.spec)
    model = load_pretrained(str(tiny_folder), label_names=load_task(DATA).task.labels, seed=0).model
    drop_positions(model, TRAINING.max_length)
    assert executor._start(model, first.run_id) == {}
    weights = open_artifact(store.done(first.run_id) / "artifact").dense_weights()
    for name, parameter in model.named_parameters():
        assert np.array_equal(parameter.detach().numpy(), weights[name]), name
    assert cell.run_id == last.run_id


def test_a_chain_alone_gives_the_bytes_that_it_gives_in_the_grid(chains, tmp_path):
    grid, store, cells = chains
    alone = run_study(replace(grid, subsets=grid.subsets[1:2]), tmp_path, num_workers=1)
    assert alone[1].run_id == cells[2].run_id
    for name in ("model.safetensors", "manifest.json"):
        mine, theirs = (one.done(cells[2].run_id) / "artifact" / name for one in (Store(tmp_path), store))
        assert mine.read_bytes() == theirs.read_bytes()


def test_tables_tell_orders_apart_and_name_every_method(chains):
    _, store, _ = chains
    rows = store.cells()
    assert rows[2]["methods"] == ["pruning", "quantization"]
    assert rows[2]["stages"] == [["pruning"], ["quantization"]]
    assert [cell.label for cell in read_cells(rows)] == [
        "dense", "Q8+P50", "P50>Q8", "Q8>P50+Q8", "KD>P50>Q8"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tickets(tiny_folder, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("tickets"))
    rounds = TicketSpec(rounds=2, share=0.4, rewind=("rate", "weights"), at=0.25, importance=("magnitude", "random"))
    grid = study(tiny_folder, subsets=((),), tickets=rounds, training=replace(TRAINING, epochs=2))
    cells = run_study(grid, store.folder, num_workers=1)
    assert [cell.state for cell in cells] == ["done"] * 9
    return store, cells


def test_each_round_removes_the_smallest_weights_that_the_last_one_left(tickets):
    """Against a plain sort of the last round's weights."""
    store, cells = tickets
    for cell in cells[1:]:
        if cell.spec["methods"][0]["settings"]["importance"] == "random":
            continue
        last = open_artifact(store.done(cell.spec["mask_from"]) / "artifact").dense_weights()
        found = zeros(store, cell.run_id)
        sizes = np.concatenate([np.abs(last[name]).ravel() for name in sorted(found)])
        gone = np.concatenate([found[name].ravel() for name in sorted(found)])
        sparsity = cell.spec["methods"][0]["settings"]["sparsity"]
        assert gone.sum() == round(sparsity * gone.size)
        assert sizes[gone].max() <= sizes[~gone].min()


def test_rounds_are_nested_and_random_ones_differ(tickets):
    store, cells = tickets
    for first, second in ((1, 2), (3, 4), (5, 6), (7, 8)):
        earlier, later = zeros(store, cells[first].run_id), zeros(store, cells[second].run_id)
        assert all(not (mask & ~later[name]).any() for name, mask in earlier.items())
        assert sum(mask.sum() for mask in later.values()) / sum(m.size for m in later.values()) == pytest.approx(
            1 - 0.6**2, abs=0.001
        )
    magnitude, random = zeros(store, cells[1].run_id), zeros(store, cells[3].run_id)
    assert any((magnitude[name] != random[name]).any() for name in magnitude)
    source, share = cells[5].spec["start"].split("@")
    kept = load_file(store.done(source) / f"kept-{share}.safetensors")
    dense = open_artifact(store.done(cells[0].run_id) / "artifact").dense_weights()
    assert kept.keys() == dense.keys()
    moved = [np.abs(kept[name] - dense[name]).max() for name in kept]
    assert max(moved) > 1e-3  # a quarter of the training is not all of it


def test_rounds_have_names_of_their_own(tickets):
    store, _ = tickets
    labels = [cell.label for cell in read_cells(store.cells())]
    assert labels == [
        "dense",
        "P40[importance=magnitude]",
        "P64[importance=magnitude][2 rounds]",
        "P40[importance=random]",
        "P64[importance=random][2 rounds]",
        "P40[importance=magnitude][rewound]",
        "P64[importance=magnitude][rewound]",
        "P40[importance=random][rewound]",
        "P64[importance=random][rewound]",
    ]


def test_a_training_whose_weights_are_kept_is_resumed_whole(tiny_folder, tmp_path, tickets):
    store, cells = tickets
    grid = study(
        tiny_folder,
        subsets=((),),
        tickets=TicketSpec(rounds=1, rewind=("weights",), at=0.25),
        training=replace(TRAINING, epochs=2),
    )
    plan = Plan(grid)
    (dense,) = [job for job in plan.with_needs(plan.cells({(str(tiny_folder), DATA): 1e-3})) if job.spec.kept]
    assert dense.run_id == cells[5].spec["start"].split("@")[0]
    plain = Plan(study(tiny_folder, subsets=((),), training=replace(TRAINING, epochs=2)))
    assert plain.cells({(str(tiny_folder), DATA): 1e-3})[0].run_id == cells[0].run_id  # tickets rename nothing
    other = Store(tmp_path)
    other.register(dense.run_id, dense.record)

    def stop(done, total, loss):
        if done == 1:
            raise KeyboardInterrupt

    executor = Executor(other, Places())
    with pytest.raises(KeyboardInterrupt):
        executor.execute(dense.run_id, dense.spec, stop)
    executor.execute(dense.run_id, dense.spec)
    for name in ("kept-1.0.safetensors", "artifact/model.safetensors"):
        assert (other.done(dense.run_id) / name).read_bytes() == (store.done(dense.run_id) / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / dense.run_id).iterdir()) == [
        "attempt-1", "attempt-2", "lock", "spec.json"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tickets": {"rounds": 0}}, "tickets.rounds"),
        ({"tickets": {}}, "needs rounds"),
        ({"tickets": {"rounds": 2, "share": 1.0}}, "tickets.share is 1.0, but must be a share above 0 and below 1"),
        ({"tickets": {"rounds": 2, "share": 0}}, "tickets.share is 0, but must be a share above 0 and below 1"),
        ({"tickets": {"rounds": 2, "rate_to": [0.5, 0.5, 0.2]}}, "rate_to holds 3 shares, but tickets.rounds is 2"),
        ({"tickets": {"rounds": 2, "weight_rounds": [2, 2]}}, "weight_rounds holds a number twice"),
        ({"tickets": {"rounds": 2, "at": 1.0}}, "tickets.at"),
        ({"tickets": {"rounds": 2, "rewind": "lr"}}, "rate, weights"),
        ({"tickets": {"rounds": 2, "importance": ["size"]}}, "magnitude, random"),
        ({"tickets": {"rounds": 2, "round": 2}}, "known are"),
        ({"training": {"shared_start": 1.0}}, "shared_start"),
        ({"training": {"shared_start": 0.5}, "tickets": {"rounds": 2}}, "do not go together"),
        ({"methods": {"subsets": [[["pruning"], "quantization"]]}}, "chain"),
        ({"tickets": {"rounds": 2, "rewind": []}}, "rewind"),
    ],
)
def test_a_wrong_chain_is_refused(changes, message):
    document = {"study": {"name": "s"}, "models": {"names": ["m"]}, "tasks": {"names": ["sst2"]}, **changes}
    with pytest.raises(SpecError, match=message):
        parse_study(document)


def test_a_chain_is_read_as_it_is_written():
    document = {"study": {"name": "s"}, "models": {"names": ["m"]}, "tasks": {"names": ["sst2"]}}
    document |= {"methods": {"subsets": [[], ["pruning"], [["pruning"], ["quantization"]]]}}
    document |= {"tickets": {"rounds": 3, "rewind": "weights", "at": 0}, "training": {}}
    found = parse_study(document)
    assert found.subsets == ((), ("pruning",), (("pruning",), ("quantization",)))
    assert found.tickets == TicketSpec(3, rewind=("weights",), at=0)
    with pytest.raises(SettingError, match="given twice"):
        Plan(replace(found, models=("none",), subsets=((("pruning", "pruning"),),))).check()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"subsets": ((("pruning", "quantization"), ("distillation",)),)}, SpecError, "last"),
        ({"subsets": ((("pruning",), ("quantization",), ()),)}, SpecError, "last"),
        (
            {"methods": {"pruning": {"embedings": True}}},
            SettingError,
            "no setting 'embedings'; its settings are: biases",
        ),
        ({"methods": {"pruning": {"sparsity": 0.9}}}, SpecError, "no effect"),
        ({"methods": {"pruning": {"scope": ["global", "matrix"]}}}, SettingError, "one value"),
        ({"methods": {"pruning": {"scope": "rows"}}}, SettingError, "global, matrix"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(changes, error, message):
    grid = StudySpec("s", ("none",), (DATA,), subsets=((),), tickets=TicketSpec(2))
    with pytest.raises(error, match=message):
        expand_chains(replace(grid, **changes))


def test_empty_stages_and_shared_beginnings_are_never_taken_for_one_training(tiny_folder):
    rows = []
    for number, changes in enumerate(
        [
            {"subsets": (("pruning",), (("pruning",), ()), ((), ("pruning",)))},
            {"subsets": (("pruning",),), "shared_start": 0.5},
        ]
    ):
        cells = Plan(study(tiny_folder, methods={"pruning": PRUNING}, **changes)).cells(
            {(str(tiny_folder), DATA): 1e-3}
        )
        rows += [cell_row(Run(job.run_id, job.record, "pending"), None) | {"studies": [str(number)]} for job in cells]
    cells = read_cells(rows)
    assert [cell.label for cell in cells[:4]] == ["dense", "P50", "P50>dense", "dense>P50"]
    assert [cell.label for cell in cells[4:]] == ["dense", "P50"]
    assert len({(cell.task, cell.label) for cell in cells}) == 6
    assert "shared_start=0.5" in cells[5].task
