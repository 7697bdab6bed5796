"""Studies: what a grid expands to, what runs share, and that a study goes on after anything."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest
from safetensors.numpy import load_file

from multipress.engines import open_engine
from multipress.engines.execute import Executor
from multipress.engines.job import Job, Places
from multipress.engines.local import LocalEngine
from multipress.engines.schedule import run_jobs
from multipress.engines.single import train_artifact
from multipress.errors import InputError, ModelError, SettingError, SpecError
from multipress.estimate import (
    CODED_SECONDS,
    SECONDS_BESIDE,
    _num_tokens,
    describe,
    describe_sizes,
    predicted_bytes,
    predicted_seconds,
    scheduled_seconds,
)
from multipress.plan import Plan, expand_chains
from multipress.precision import BlockRates
from multipress.recipe import Recipe
from multipress.spec import DataSpec, MethodSpec, RunSpec, StudySpec, TrainingSpec, canonical_json
from multipress.store import Store
from multipress.study import choose_rates, run_study
from multipress.tasks import load_task

DATA = DataSpec(task="banking77", max_train_rows=24, max_eval_rows=20)
TRAINING = TrainingSpec(epochs=2, learning_rate=1e-3, batch_size=8, max_length=12)


def study(folder, **changes):
    grid = StudySpec(
        name="tiny",
        models=(str(folder),),
        data=(DATA,),
        training=TRAINING,
        learning_rates=(1e-3,),
        subsets=((), ("quantization",), ("distillation", "pruning")),
    )
    return replace(grid, **changes)


def table(store):
    return canonical_json(store.cells())


def test_all_means_the_eight_subsets_with_lists_as_axes(tiny_folder):
    grid = study(tiny_folder, subsets="all", methods={"pruning": {"sparsity": [0.4, 0.6]}})
    recipes = [tuple(method.name for method in recipe) for (recipe,) in expand_chains(grid)]
    assert len(recipes) == 12
    assert len(set(recipes)) == 8
    assert recipes[0] == ()
    assert all(recipe.count("pruning") < 2 for recipe in recipes)


def test_the_dense_control_is_always_there_and_defaults_are_written_out(tiny_folder):
    ((dense,), ((quantization,),)) = expand_chains(study(tiny_folder, subsets=(("quantization",),)))
    assert dense == ()
    assert quantization.settings["bits"] == 8
    assert quantization.settings["learned_step"] is False


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"subsets": (("prune",),)}, SpecError, "there are: structured, vocabulary, pruning"),
        ({"methods": {"pruninng": {}}}, SpecError, "there are: structured, vocabulary, pruning"),
        (
            {"subsets": (("quantisation",),), "methods": {"pruning": {"sparsity": 0.5}}},
            SpecError,
            "No method 'quantisation'",
        ),
        ({"subsets": ((),), "methods": {"pruning": {"sparsity": 0.5}}}, SpecError, "no effect"),
        ({"methods": {"pruning": {"sparsity": 60}}}, SettingError, "write 0.6"),
        ({"methods": {"pruning": {"sparsity": []}}}, SettingError, "empty list"),
        ({"methods": {"pruning": {"sparse": 0.6}}}, SettingError, "sparsity"),
        ({"methods": {"distillation": {"teacher": "nobody"}}}, ModelError, "nobody"),
        ({"methods": {"distillation": {"teacher": 3}}}, SpecError, "largest"),
        ({"training": replace(TRAINING, max_length=41)}, SettingError, "at most 40"),
        (
            {"subsets": (("structured",),), "methods": {"structured": {"speedup": 50}}},
            SettingError,
            "about .* times as",
        ),
        ({"models": ("no-such-model",)}, ModelError, "no-such-model"),
    ],
)
def test_a_study_that_cannot_run_is_refused_before_anything_is_written(tiny_folder, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run_study(study(tiny_folder, **changes), tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/spec.json"))


def test_the_largest_model_teaches_and_its_logits_are_made_once_a_task_and_seed(tiny_folder):
    plan = Plan(study("minilm-l3", models=("minilm-l3", str(tiny_folder)), seeds=(0, 1)))
    cells = plan.cells({(model, DATA): 1e-3 for model in plan.study.models})
    jobs = plan.with_needs(cells)
    labels = [job for job in jobs if job.spec.kind == "label"]
    assert len(cells) == 2 * 2 * 3
    assert len(labels) == 2
    assert {label.spec.model for label in labels} == {"minilm-l3"}
    dense = {job.run_id for job in cells if job.spec.model == "minilm-l3" and not job.spec.methods}
    assert {label.spec.teacher for label in labels} == dense
    assert len({job.run_id for job in jobs}) == len(jobs) == len(cells) + 2
    for job in jobs:
        earlier = {other.run_id for other in jobs[: jobs.index(job)]}
        assert set(job.needs) <= earlier


def test_a_dry_run_counts_and_writes_nothing(tiny_folder, tmp_path):
    text = describe(Plan(study(tiny_folder, seeds=(0, 1))), Store(tmp_path / "runs"))
    assert "6 cells = 1 models x 1 tasks x 2 seeds x 3 recipes" in text
    assert "8 in all, 2 of them" in text
    assert not (tmp_path / "runs").exists()
    sizes = list(describe_sizes(Plan(study(tiny_folder, seeds=(0, 1)))))
    assert len(sizes) == 4
    assert ", dense: about 0." in sizes[1]
    assert ", quantization: about 0." in sizes[2]
    assert ", pruning: about 0." in sizes[3]  # what a teacher says weighs nothing
    shared = study(tiny_folder, shared_start=0.5, training=replace(TRAINING, epochs=4))
    weights = [line.rsplit(", ", 1)[-1] for line in sizes]  # the manifest in the package names the epochs
    assert [line.rsplit(", ", 1)[-1] for line in describe_sizes(Plan(shared))] == weights


def test_a_study_refuses_a_teacher_with_another_tokenizer_before_it_runs(tiny_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"card"', '"kard"'))
    grid = study(tiny_folder, methods={"distillation": {"hidden": 1.0, "states": "token", "teacher": str(other)}})
    with pytest.raises(SettingError, match="another tokenizer"):
        Plan(grid).check()
    Plan(study(tiny_folder, methods={"distillation": {"hidden": 1.0, "teacher": str(other)}})).check()


def test_predicted_time_of_a_translator_counts_tokens_words_and_beams(tmp_path, monkeypatch):
    monkeypatch.setattr("multipress.estimate._rates", lambda: BlockRates(train=1e9, teach=2e9, read=4e9, update=1e-9))
    for name, count in (("train", 200), ("dev", 20)):
        rows = "".join(f"{name} {n} a b c d,target {n}\n" for n in range(count))
        (tmp_path / f"{name}.csv").write_text("source,target\n" + rows)
    data = DataSpec(train=str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv"), target="text")
    training = TrainingSpec(epochs=3, batch_tokens=500, max_length=32)
    model = "transformer-l2-h64-v300"
    plan = Plan(replace(study(tmp_path, models=(model,)), data=(data,), training=training))
    weights = plan.multiplied_weights(model)
    assert weights == 2 * 12 * 64**2 + 2 * 16 * 64**2 + 300 * 64  # a decoder's block looks at what was read too
    of_train, of_dev = _num_tokens(plan, model, data, 32)
    steps = 3 * -(-2 * of_train // 500)
    expected = 3 * of_train * 6 * weights / 1e9 + steps * weights * 1e-9 + 5 * of_dev * 2 * weights / 4e9
    assert predicted_seconds(plan, RunSpec("train", model, data, training)) == pytest.approx(expected + SECONDS_BESIDE)


def test_translators_that_will_learn_other_pieces_teach_each_other_no_words(tmp_path):
    for name in ("train", "dev"):
        rows = "".join(f"{name} {n},target {n}\n" for n in range(20))
        (tmp_path / f"{name}.csv").write_text("source,target\n" + rows)
    data = DataSpec(train=str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv"), target="text")
    larger, smaller = "transformer-l1-h64-v500", "transformer-l1-h32-v300"
    grid = replace(study(tmp_path, models=(larger, smaller)), data=(data,), subsets=(("distillation",),), methods={})
    with pytest.raises(SettingError, match="another tokenizer"):
        Plan(grid).check()
    Plan(replace(grid, models=(larger, "transformer-l1-h32-v500"))).check()


def test_a_dry_run_counts_the_papers_sizes_without_having_them(tmp_path, monkeypatch):
    monkeypatch.setattr("multipress.models.catalogue._hub_folder", lambda name, pickled, download: refuse(name))
    monkeypatch.delenv("MULTIPRESS_MODELS", raising=False)
    grid = replace(study(tmp_path), models=("bert-tiny", "bert-large"))
    text = describe(Plan(grid, only_counts=True), Store(tmp_path / "runs"))
    assert "6 cells = 2 models" in text
    assert "bert-tiny, bert-large. Their shapes are known" in text
    # What is stored of bert-large's 335 million parameters: 2 bytes each, a quarter of a run with 8 bits less.
    dense = predicted_bytes(Plan(grid, only_counts=True), RunSpec("train", "bert-large", DATA))
    assert dense == pytest.approx(335.14e6 * 2, rel=0.01)
    with pytest.raises(ModelError, match="bert-tiny is not here"):
        describe(Plan(grid), Store(tmp_path / "runs"))
    with pytest.raises(ModelError, match="nobody"):
        describe(Plan(replace(grid, models=("nobody",)), only_counts=True), Store(tmp_path / "runs"))


def test_predicted_time_counts_what_is_multiplied(monkeypatch):
    """Against the sizes of bert-tiny and bert-base, by hand; the teacher runs in each step for states of tokens."""
    monkeypatch.setattr("multipress.models.catalogue._hub_folder", lambda name, pickled, download: refuse(name))
    monkeypatch.delenv("MULTIPRESS_MODELS", raising=False)
    monkeypatch.setattr("multipress.estimate._rates", lambda: BlockRates(train=1e9, teach=2e9, read=4e9, update=1e-9))
    grid = replace(study("none"), models=("bert-tiny", "bert-base"))
    plan = Plan(grid, only_counts=True)
    assert plan.multiplied_weights("bert-tiny") == pytest.approx((2 - 5 / 6) * 12 * 128**2)
    assert plan.multiplied_weights("bert-base") == pytest.approx((12 - 5 / 6) * 12 * 768**2)

    def both(**settings):
        recipe = Recipe.from_specs((MethodSpec("distillation", settings),))
        student = RunSpec("train", "bert-tiny", DATA, TRAINING, recipe.specs())
        label = RunSpec("label", "bert-base", DATA, TRAINING, recipe.label_specs())
        return (predicted_seconds(plan, student), predicted_seconds(plan, label)), predicted_bytes(plan, label)

    def quantized(**settings):
        specs = Recipe.from_specs((MethodSpec("quantization", settings),)).specs()
        return predicted_seconds(plan, RunSpec("train", "bert-tiny", DATA, TRAINING, specs))

    # Counting bits takes its time in each of the six steps.
    counting = 6 * CODED_SECONDS * plan.multiplied_weights("bert-tiny")
    for setting in ({"rate": 1.0}, {"rate_weight": 0.1}):
        assert quantized(**setting) == pytest.approx(quantized() + counting)
    # Forward and backward of all epochs, six steps of the optimizer, the validation rows as a stored model reads them.
    weights = plan.multiplied_weights("bert-tiny")
    of_train, of_dev = _num_tokens(plan, "bert-tiny", DATA, TRAINING.max_length)
    expected = TRAINING.epochs * of_train * 6 * weights / 1e9 + 6 * weights * 1e-9 + of_dev * 2 * weights / 4e9
    dense = predicted_seconds(plan, RunSpec("train", "bert-tiny", DATA, TRAINING))
    assert dense == pytest.approx(expected + SECONDS_BESIDE)

    tokens = _num_tokens(plan, "bert-tiny", DATA, TRAINING.max_length)[0]
    once = tokens * 2 * plan.multiplied_weights("bert-base") / 2e9
    (student, label), size = both(hidden=0.0)
    (same, twice), larger = both(hidden=1.0)
    assert (same, twice) == (pytest.approx(student), pytest.approx(label + once))
    assert larger - size == 2 * 24 * 13 * 768
    assert both(hidden=1.0, states="token")[0] == (
        pytest.approx(student + TRAINING.epochs * once),
        pytest.approx(label),
    )


def refuse(name):
    raise ModelError("bert-tiny is not here")


def test_rows_made_of_others_are_made_once_by_the_teachers_run(tiny_folder, tmp_path):
    """Two recipes that ask for the same further rows share them; one without them has a teacher's run of its own."""
    grid = study(
        tiny_folder,
        subsets=(("distillation",), ("distillation", "quantization")),
        methods={"distillation": {"augment": [0, 2], "replace": 0.5, "hidden": 1.0}},
    )
    store = Store(tmp_path / "runs")
    cells = run_study(grid, store.folder, num_workers=1)
    assert [cell.state for cell in cells] == ["done"] * 5
    labels = [run for run in store.runs() if run.spec["kind"] == "label"]
    settings = [run.spec["methods"][0]["settings"] for run in labels]
    assert sorted(settings, key=len) == [{"states": True}, {"augment": 2, "replace": 0.5, "states": True}]
    (with_rows,) = (run for run in labels if "augment" in run.spec["methods"][0]["settings"])
    done = store.done(with_rows.run_id)
    made = json.loads((done / "made.json").read_text())
    assert len(made["texts"]) == 48  # twice 24
    assert load_file(done / "logits.safetensors")["logits"].shape == (72, 77)
    assert load_file(done / "states.safetensors")["states"].shape == (72, 3, 32)
    own = load_task(DATA).train.texts
    assert all(new != old for new, old in zip(made["texts"], own * 2, strict=True) if "card" in old)
    steps = {store.done(cell.run_id) / "log.jsonl" for cell in cells}
    assert {json.loads(line)["step"] for path in steps for line in path.read_text().splitlines()[-2:-1]} == {6}


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    """A whole tiny study with two learning rates to choose from."""
    store = Store(tmp_path_factory.mktemp("finished") / "runs")
    grid = study(tiny_folder, learning_rates=(1e-3, 1e-6))
    ends = []
    run_study(
        grid,
        store.folder,
        num_workers=1,
        on_end=lambda run, ended, total: ends.append((run.state, ended, total)),
    )
    return grid, store, ends


def test_a_study_runs_to_its_end_and_its_cells_are_complete(finished):
    _, store, ends = finished
    rows = store.cells()
    assert [row["methods"] for row in rows] == [[], ["quantization"], ["pruning", "distillation"]]
    assert all(row["state"] == "done" and 0 <= row["score"] <= 1 for row in rows)
    assert all(0 < row["weights_bytes"] < row["package_bytes"] for row in rows)
    assert {state for state, _, _ in ends} == {"done"}


def test_the_rate_is_chosen_on_the_dense_run_and_used_by_all_cells(finished):
    _, store, _ = finished
    dense = [run for run in store.runs() if run.spec["kind"] == "train" and not run.spec["methods"]]
    scores = {}
    for run in dense:
        lines = (store.done(run.run_id) / "measurements.jsonl").read_text().splitlines()
        scores[run.spec["training"]["learning_rate"]] = next(
            row["value"] for row in map(json.loads, lines) if row["name"] == "score"
        )
    best = max(sorted(scores), key=lambda rate: scores[rate])
    assert len(scores) == 2
    assert {row["learning_rate"] for row in store.cells()} == {best}


def test_the_same_call_again_runs_nothing(finished):
    grid, store, _ = finished
    before = table(store)
    attempts = {run.run_id: run.attempts for run in store.runs()}
    ends = []
    run_study(grid, store.folder, num_workers=1, on_end=lambda *end: ends.append(end))
    assert ends == []
    assert {run.run_id: run.attempts for run in store.runs()} == attempts
    assert table(store) == before


def test_all_that_a_finished_study_claims_is_true(finished):
    _, store, _ = finished
    verdicts = store.verify()
    assert verdicts
    assert all(not verdict.problems for verdict in verdicts)


def test_a_cell_alone_has_the_same_identity_and_the_same_bytes_as_in_the_grid(finished, tmp_path):
    _, store, _ = finished
    cell = next(row for row in store.cells() if row["methods"] == ["quantization"])
    spec = RunSpec.from_json(store.run(cell["run_id"]).spec)
    alone = train_artifact(spec, tmp_path / "alone")
    assert alone.artifact.facts["run_id"] == cell["run_id"]
    inside = store.done(cell["run_id"]) / "artifact"
    for name in ("model.safetensors", "graph.onnx.zst", "tokenizer.bin", "config.json", "manifest.json"):
        assert (alone.artifact.folder / name).read_bytes() == (inside / name).read_bytes(), name


def test_runs_that_need_a_failed_run_fail_and_the_others_go_on(tiny_folder, tmp_path, finished):
    _, other, _ = finished
    grid = study(tiny_folder)
    store = Store(tmp_path / "runs")
    store.check_writable()
    plan = Plan(grid)
    cells = plan.cells({(str(tiny_folder), DATA): 1e-3})
    jobs = plan.with_needs(cells)
    label = next(job for job in jobs if job.spec.kind == "label")
    broken = replace(label, spec=replace(label.spec, teacher="f" * 12), needs=())
    jobs = [broken if job is label else job for job in jobs]
    for job in jobs:
        store.register(job.run_id, job.spec.to_json())
    with closing(LocalEngine(store, Places(), 1)) as engine:
        run_jobs(jobs, store, engine)
    states = {tuple(cell.spec.method_names): store.run(cell.run_id) for cell in cells}
    assert states[()].state == states[("quantization",)].state == "done"
    assert states[("pruning", "distillation")].state == "failed"
    assert label.run_id in states[("pruning", "distillation")].why
    assert other.folder != store.folder


def kill_workers(store, times, stop):
    """Kill the worker process whenever a run is under way, up to so many times."""
    killed = 0
    seen = set()
    while killed < times and not stop.is_set():
        running = [(run.run_id, run.attempts) for run in store.runs() if run.state == "running"]
        for attempt in running:
            if attempt in seen:
                continue
            seen.add(attempt)
            command = ["pgrep", "-P", str(os.getpid()), "-f", "multiprocessing.spawn"]
            for child in subprocess.run(command, capture_output=True, text=True).stdout.split():
                os.kill(int(child), signal.SIGKILL)
            killed += 1
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("times", "states"),
    [(1, ["done", "done"]), pytest.param(2, ["failed", "done"], marks=pytest.mark.slow)],
)
def test_a_worker_that_dies_is_replaced_and_its_run_tried_once_more(tiny_folder, tmp_path, times, states):
    grid = study(tiny_folder, subsets=((), ("quantization",)))
    store = Store(tmp_path / "runs")
    jobs = Plan(grid).cells({(str(tiny_folder), DATA): 1e-3})
    store.check_writable()
    for job in jobs:
        store.register(job.run_id, job.spec.to_json())
    ended, stop = [], threading.Event()
    killer = threading.Thread(target=kill_workers, args=(store, times, stop))
    killer.start()
    with closing(LocalEngine(store, Places(), 1)) as engine:
        run_jobs(jobs, store, engine, on_end=ended.append)
    stop.set()
    killer.join()
    assert [store.run(job.run_id).state for job in jobs] == states
    assert len(ended) == len(jobs)
    for run in store.runs():
        if run.state == "failed":
            assert "SIGKILL" in run.why
            assert run.retryable
    assert [run.state for run in run_study(grid, store.folder, num_workers=1)] == ["done", "done"]


def test_rows_that_changed_after_the_run_was_named_fail_the_run(tiny_folder, tmp_path):
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("text,label\n" + "".join(f"card {i},{'yes' if i % 2 else 'no'}\n" for i in range(12)))
    dev.write_text("text,label\nlost,no\nhere,yes\n")
    spec = RunSpec("train", str(tiny_folder), DataSpec(train=str(train), dev=str(dev)), TRAINING)
    store = Store(tmp_path / "runs")
    store.check_writable()
    store.register("0" * 12, spec.to_json())
    Executor(store, Places()).execute("0" * 12, spec)
    run = store.run("0" * 12)
    assert run.state == "failed"
    assert run.retryable
    assert "changed after" in run.why
    # A teacher's answers on rows that changed since they were asked for are not kept either.
    grid = study(tiny_folder, data=(spec.data,), subsets=(("distillation",),), training=TRAINING)
    plan = Plan(grid)
    jobs = plan.with_needs(plan.cells({(str(tiny_folder), spec.data): 1e-3}))
    dense, label = (next(job for job in jobs if job.spec.kind == kind) for kind in ("train", "label"))
    for job in (dense, label):
        store.register(job.run_id, job.record)
    Executor(store, Places()).execute(dense.run_id, dense.spec)
    assert store.run(dense.run_id).state == "done"
    kept = train.read_text()
    train.write_text(kept.replace("card 3", "no card 3"))
    Executor(store, Places()).execute(label.run_id, label.spec)
    assert "changed after" in store.run(label.run_id).why
    train.write_text(kept)
    Executor(store, Places()).execute(label.run_id, label.spec)
    assert store.run(label.run_id).state == "done"
    first = train_artifact(spec, tmp_path / "first")
    train.write_text(train.read_text().replace("card 3", "my lost card 3"))
    second = train_artifact(spec, tmp_path / "second")
    assert first.artifact.facts["run_id"] != second.artifact.facts["run_id"]
    weights = [one.artifact.dense_weights()["classifier.weight"] for one in (first, second)]
    assert not (weights[0] == weights[1]).all()


class NoEngine:
    """Fails when it is given anything to do."""

    tries = 1

    def has_room(self):
        raise AssertionError("a job was begun")

    begin = wait = close = has_room


@pytest.mark.parametrize("fault", ["name", "model", "rows", "length"])
def test_bad_input_shows_before_anything_is_made_or_run(tmp_path, monkeypatch, fault):
    """An encoder that must be made first takes minutes."""
    monkeypatch.setenv("MULTIPRESS_CACHE", str(tmp_path / "cache"))
    changes = {"models": ("minilm-l1-h32",), "subsets": ((),), "training": TRAINING}
    changes |= {
        "name": {"name": "my study"},
        "model": {"models": ("minilm-l1-h32", str(tmp_path / "nowhere"))},
        "rows": {"data": (DataSpec(train=str(tmp_path / "no.csv"), dev=str(tmp_path / "no.csv")),)},
        "length": {"training": replace(TRAINING, max_length=100_000)},
    }[fault]
    with pytest.raises(InputError):
        run_study(study("", **changes), tmp_path / "runs", engine=NoEngine())
    assert not (tmp_path / "cache").exists()


def test_the_time_of_a_study_is_that_of_its_schedule():
    """Chains wait for their beginnings: more workers than chains do not help. Against a slow simulation."""
    spec = RunSpec("train", "m", DATA)
    chains = [[Job(f"{c}{n}", spec, (f"{c}{n - 1}",) if n else ()) for n in range(3)] for c in "ab"]
    jobs = [job for chain in chains for job in chain]
    seconds = {job.run_id: 10.0 for job in jobs}
    assert scheduled_seconds(jobs, seconds, 1) == 60
    assert scheduled_seconds(jobs, seconds, 2) == scheduled_seconds(jobs, seconds, 8) == 30
    assert scheduled_seconds([], {}, 2) == 0
    draw = random.Random(0)
    for _ in range(50):
        names = [str(n) for n in range(draw.randint(1, 12))]
        jobs = [
            Job(name, spec, tuple(draw.sample(names[:n], min(n, draw.randint(0, 2))))) for n, name in enumerate(names)
        ]
        seconds = {name: float(draw.randint(1, 9)) for name in names}
        workers = draw.randint(1, 4)
        left, tick = {job.run_id: seconds[job.run_id] for job in jobs}, 0
        busy: list[str] = []
        while left:  # second by second
            for job in jobs:
                is_free = job.run_id in left and job.run_id not in busy and not set(job.needs) & set(left)
                if is_free and len(busy) < workers:
                    busy.append(job.run_id)
            tick += 1
            for name in list(busy):
                left[name] -= 1
                if not left[name]:
                    del left[name]
                    busy.remove(name)
        assert scheduled_seconds(jobs, seconds, workers) == tick


def test_a_finished_study_has_nothing_left_to_do_whatever_rate_won(finished):
    grid, store, _ = finished
    text = describe(Plan(grid), store, 1)
    assert " 0 are left to do" in text


def test_a_rate_is_not_chosen_while_a_dense_run_may_still_end_well(finished, tmp_path):
    grid, done, _ = finished
    plan = Plan(grid)
    candidates = plan.rate_jobs()
    assert choose_rates(plan, candidates, done)
    store = Store(tmp_path / "runs")
    (by_rate,) = candidates.values()
    for number, job in enumerate(by_rate.values()):
        store.register(job.run_id, job.spec.to_json())
        attempt = store.claim(job.run_id)
        if number == 0:
            row = {"run_id": job.run_id, "name": "score", "value": 0.5, "unit": "share", "context": {}}
            (attempt.folder / "measurements.jsonl").write_text(json.dumps(row) + "\n")
            attempt.commit()
        else:
            attempt.fail("failed", "out of memory", retryable=True)
    assert choose_rates(plan, candidates, store) == {}
    attempt = store.claim(list(by_rate.values())[1].run_id)
    attempt.fail("diverged", "NaN", retryable=False)
    assert choose_rates(plan, candidates, store) == {(str(grid.models[0]), DATA): 1e-3}


def test_cells_without_a_rate_are_shown_and_what_needs_the_teacher_is_left_out(tiny_folder):
    plan = Plan(study("minilm-l3", models=("minilm-l3", str(tiny_folder)), learning_rates=(1e-3, 1e-4)))
    cells = plan.cells({(str(tiny_folder), DATA): 1e-3})
    assert [cell.spec.training.learning_rate for cell in cells[:2]] == [1e-3, 1e-4]
    assert [cell.spec.method_names for cell in cells] == [(), (), (), ("quantization",)]


def study_file(model, folder):
    """The study `finished`, as a user writes it."""
    path = folder / "tiny.toml"
    path.write_text(
        f"""
[study]
name = "tiny"
[models]
names = ["{model}"]
[tasks]
names = ["banking77"]
max_train_rows = 24
max_eval_rows = 20
[training]
epochs = 2
learning_rates = [1e-3, 1e-6]
batch_size = 8
max_length = 12
[methods]
subsets = [[], ["quantization"], ["distillation", "pruning"]]
"""
    )
    return path


@pytest.mark.slow
def test_a_study_killed_at_any_moment_ends_with_the_same_table(tiny_folder, finished, tmp_path):
    _, undisturbed, _ = finished
    spec = study_file(tiny_folder, tmp_path)
    runs = tmp_path / "runs"
    command = [
        sys.executable,
        "-m",
        "multipress",
        "study",
        "run",
        str(spec),
        "--runs",
        str(runs),
        "--workers",
        "1",
    ]
    for seconds in (6, 9, 12, 15):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert table(Store(runs)) == table(undisturbed)


def test_one_model_is_trained_into_a_folder_and_nothing_else_stays(tiny_folder, tmp_path):
    spec = RunSpec("train", "tiny", DATA, TRAINING)
    trained = train_artifact(spec, tmp_path / "out", places=Places(models_dir=tiny_folder.parent))
    assert {row.name for row in trained.measurements} >= {"score", "accuracy", "weights_bytes", "ideal_bytes"}
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.slow
def test_ray_gives_the_bytes_that_workers_of_this_computer_give(tiny_folder, finished, tmp_path):
    pytest.importorskip("ray")
    grid, store, _ = finished
    other = Store(tmp_path / "runs")
    with closing(open_engine("ray", other, Places(), 2)) as engine:
        run_study(grid, other.folder, engine=engine)
    assert table(other) == table(store)
    for run in store.runs():
        mine, theirs = store.done(run.run_id) / "artifact", other.done(run.run_id) / "artifact"
        for path in mine.glob("*"):
            if path.name != "README.md":  # the card says how long it took
                assert path.read_bytes() == (theirs / path.name).read_bytes(), path


@pytest.mark.slow
def test_a_study_needs_no_home_no_output_and_no_right_time(tiny_folder, finished, tmp_path):
    """Nothing of the environment but a path, standard output closed, and the clock set back in the middle."""
    _, undisturbed, _ = finished
    spec = study_file(tiny_folder, tmp_path)
    code = (
        "import time; now = time.time; time.time = lambda: now() - 1e9 * (int(now()) % 2)\n"
        "import sys; from multipress.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "study",
        "run",
        str(spec),
        "--runs",
        str(tmp_path / "runs"),
        "--workers",
        "1",
    ]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert table(Store(tmp_path / "runs")) == table(undisturbed)
