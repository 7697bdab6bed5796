"""What a study would run: how many runs, about how long and how large, before anything is trained."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np

from multipress.engines.job import Job
from multipress.engines.local import default_workers
from multipress.methods import Method, Stage
from multipress.models.catalogue import SHRUNK_FROM, SHRUNK_STEPS, shrunk_folder
from multipress.models.decoding import BEAMS
from multipress.plan import Plan
from multipress.precision import BlockRates, block_rates
from multipress.recipe import Recipe
from multipress.runtime.tokenizer import TextEncoder
from multipress.shrink import TOKENS_A_STEP
from multipress.size_ahead import brings_words, size_before_training
from multipress.spec import TEACHING_KINDS, DataSpec, RunSpec
from multipress.store import Store
from multipress.study import choose_rates

__all__ = ["describe", "describe_sizes", "predicted_bytes", "predicted_seconds", "scheduled_seconds"]

# What masks and rounding cost for each weight and step, and counting the bits of an entropy coder; what a run costs
# beside (reading the model, tracing, packing), and a study, once (docs/log.md, 2026-11-21 and 2026-11-22).
COMPRESSING_SECONDS = 10e-9
CODED_SECONDS = 5e-9
SECONDS_BESIDE = 4.0
START_SECONDS = 8.0
TOKENS_A_WORD = 1.3  # of English WordPiece, where the tokenizer is not here to count


def describe(plan: Plan, store: Store, num_workers: int = 0) -> str:
    """A text that says what a study would run; reads models' headers and rows, runs and writes nothing.

    Args:
        plan: The study.
        store: Its store; may not exist yet.
        num_workers: Workers; 0: one a core.
    """
    plan.check()
    study = plan.study
    by_rates = plan.rate_jobs()
    candidates = plan.with_needs(job for by_rate in by_rates.values() for job in by_rate.values())
    # Where it is not known yet which rate will win, any stands for it; that changes no count and no time.
    rates = {(model, data): study.learning_rates[0] for model in plan.trained_models() for data in study.data}
    cells = plan.cells(rates | choose_rates(plan, by_rates, store))
    recoveries = plan.recoveries()
    phases = [recoveries, candidates, plan.with_needs(cells)]  # each begins when the one before it has ended
    every = {job.run_id: job for phase in phases for job in phase}
    left = {run_id: job for run_id, job in every.items() if store.done(run_id) is None}
    workers = num_workers or default_workers()
    seconds, counted = START_SECONDS * bool(left), set[str]()
    for phase in phases:
        jobs = [job for job in phase if job.run_id in left and job.run_id not in counted]
        counted |= {job.run_id for job in jobs}
        seconds += scheduled_seconds(jobs, {job.run_id: predicted_seconds(plan, job.spec) for job in jobs}, workers)
    megabytes = sum(predicted_bytes(plan, job.spec) for job in left.values()) / 1e6
    labels = sum(job.spec.kind in TEACHING_KINDS for job in every.values())
    groups = len(study.models) * len(study.data) * len(study.seeds)
    return (
        f"{study.name}: {len(cells)} cells = {len(study.models)} models x {len(study.data)} tasks x "
        f"{len(study.seeds)} seeds x {len(cells) // groups} recipes\n"
        f"runs: {len(every)} in all, {labels} of them teachers' logits that cells share, "
        f"{len(candidates)} to choose learning rates, {len(recoveries)} that make models; {len(left)} are left to do\n"
        f"time: about {_duration(seconds)} with {workers} workers on this computer\n"
        f"disk: about {megabytes:.0f} MB below {store.folder}{_absent(plan)}"
    )


def describe_sizes(plan: Plan) -> Iterator[str]:
    """Lines that say how large the artifact of each model and recipe will be, on the first task; one line a time.

    What only changes what is minimized changes no size. Of chains and tickets nothing is said.
    """
    study = plan.study
    data = study.data[0]
    rates = {(model, data): study.learning_rates[0] for model in plan.trained_models()}
    said: set[str] = set()
    if not set(plan.absent) >= set(study.models):
        yield f"sizes on {data.task or 'the first task'}, the whole package:"
    for job in plan.cells(rates):
        spec = job.spec
        every = Recipe.from_specs(spec.methods).methods
        methods = [method for method in every if method.stage != Stage.OBJECTIVE or brings_words(every)]
        name = f"{spec.model}, {' + '.join(map(_changed_settings, methods)) or 'dense'}"
        if spec.before or spec.mask_from or spec.model in plan.absent or name in said:
            continue
        said.add(name)
        ahead = size_before_training(replace(spec, methods=Recipe(methods).specs()), plan.places)
        yield f"  {name}: {ahead.text()}"


def _changed_settings(method: Method) -> str:
    """A method's name, and those of its settings that are not the default."""
    default = type(method)().settings()
    changed = [f"{key}={value}" for key, value in method.settings().items() if value != default.get(key)]
    return method.name + (f" ({', '.join(changed)})" if changed else "")


def scheduled_seconds(jobs: list[Job], seconds: dict[str, float], num_workers: int) -> float:
    """When the last job ends, if each takes its seconds and begins after those it needs; workers take them in order."""
    order = {job.run_id: number for number, job in enumerate(jobs)}
    waiting = {job.run_id: {name for name in job.needs if name in order} for job in jobs}
    needed_by: dict[str, list[str]] = defaultdict(list)
    for name, needs in waiting.items():
        for need in needs:
            needed_by[need].append(name)
    ready = [order[name] for name, needs in waiting.items() if not needs]
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < num_workers:
            number = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[jobs[number].run_id], number))
        now = running[0][0]
        while running and running[0][0] == now:
            ended = jobs[heapq.heappop(running)[1]].run_id
            for name in needed_by[ended]:
                waiting[name].remove(ended)
                if not waiting[name]:
                    heapq.heappush(ready, order[name])
    return now


def _absent(plan: Plan) -> str:
    if not plan.absent:
        return ""
    return (
        f"\nnot here yet: {', '.join(plan.absent)}. Their shapes are known from their names; the rest is counted as if "
        "they were here."
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{max(1, round(seconds / 60))} minutes"


@lru_cache(maxsize=1)
def _rates() -> BlockRates:
    return block_rates()


def predicted_seconds(plan: Plan, spec: RunSpec) -> float:
    """Seconds of one run on one core, from what a block of an encoder takes here; a rough figure."""
    # A teacher that is an artifact is taken to be as large as the largest model of the study.
    if spec.kind == "recover":
        return _recovery_seconds(plan, spec.model)
    model = spec.model if spec.model in plan.trained_models() else plan.teacher_name()
    weights = plan.multiplied_weights(model)
    train_tokens, dev_tokens = _num_tokens(plan, model, spec.data, spec.training.max_length)
    rates = _rates()
    if spec.kind in TEACHING_KINDS:
        made, passes = _label_work(spec)
        logits, states = 2 * weights / rates.read, 2 * weights / rates.teach
        return (1 + made) * train_tokens * (logits + (passes - 1) * states) + SECONDS_BESIDE
    share = spec.part[1] - spec.part[0]
    step = 6 * weights / rates.train
    if "teacher_model" in Recipe.from_specs(spec.methods).needs(plan.data(spec.data).task.target):
        step += 2 * plan.multiplied_weights(plan.teacher_name()) / rates.teach
    data, how = plan.data(spec.data), spec.training
    # Of what is written there are about as many tokens as of what is read.
    in_epoch = 2 * train_tokens / how.batch_tokens if how.batch_tokens else len(data.train) / how.batch_size
    num_steps = how.epochs * math.ceil(in_epoch)
    read = 2 * weights / rates.read * (BEAMS + 1 if data.task.target == "text" else 1)
    compressing = any(method.name in ("pruning", "quantization") for method in spec.methods) * COMPRESSING_SECONDS
    compressing += any(m.settings.get("rate") or m.settings.get("rate_weight") for m in spec.methods) * CODED_SECONDS
    return (
        share * (how.epochs * train_tokens * step + num_steps * (compressing + rates.update) * weights)
        + dev_tokens * read
        + SECONDS_BESIDE
    )


def _recovery_seconds(plan: Plan, model: str) -> float:
    """Of a shrunk encoder: the passes of the bigger one, and the training of the small one."""
    if shrunk_folder(model).is_dir():
        return 0.0
    bigger, smaller = plan.multiplied_weights(SHRUNK_FROM), plan.multiplied_weights(model)
    rates = _rates()
    return SHRUNK_STEPS * TOKENS_A_STEP * (2 * bigger / rates.teach + 6 * smaller / rates.train) + SECONDS_BESIDE


def predicted_bytes(plan: Plan, spec: RunSpec) -> int:
    """Bytes of one run's folder: the artifact's codes at their full width, the tokenizer, the predictions."""
    if spec.kind == "recover":
        return 2 * plan.num_parameters(spec.model) + 700_000
    if spec.kind in TEACHING_KINDS:
        made, passes = _label_work(spec)
        config = plan.identify(plan.teacher_name()).config
        states = 2 * (config.num_hidden_layers + 1) * config.hidden_size if passes > 1 else 0
        return (1 + made) * len(plan.data(spec.data).train) * (4 * plan.data(spec.data).task.num_outputs + states)
    bits = next((m.settings["bits"] for m in spec.methods if m.name == "quantization"), 16)
    rows = len(plan.data(spec.data).dev) * plan.data(spec.data).task.num_outputs
    kept = 4 * len(spec.kept)
    return plan.num_parameters(spec.model) * (bits + 8 * kept) // 8 + 700_000 + 4 * rows


def _label_work(spec: RunSpec) -> tuple[int, int]:
    """Rows that a teacher's run makes of each row, and how often the teacher reads them all."""
    settings = {key: value for method in spec.methods for key, value in method.settings.items()}
    return settings.get("augment", 0), 1 + ("states" in settings)


_TOKENS: WeakKeyDictionary[Plan, dict[tuple[str, DataSpec, int], tuple[int, int]]] = WeakKeyDictionary()


def _num_tokens(plan: Plan, model: str, rows: DataSpec, max_length: int) -> tuple[int, int]:
    """Tokens of the training and of the validation rows, counted once for a plan."""
    known = _TOKENS.setdefault(plan, {})
    key = (model, rows, max_length)
    if key not in known:
        known[key] = _count_tokens(plan, model, rows, max_length)
    return known[key]


def _count_tokens(plan: Plan, model: str, rows: DataSpec, max_length: int) -> tuple[int, int]:
    """The same, from a sample of 500 rows each."""
    data = plan.data(rows)
    tokenizer_json = plan.identify(model).tokenizer_json
    encoder = TextEncoder(tokenizer_json, max_length) if tokenizer_json else None
    counts = []
    for split in (data.train, data.dev):
        sample = split.take(np.linspace(0, len(split) - 1, min(500, len(split))).astype(int))
        if encoder is not None:
            lengths = [len(row.ids) for row in encoder.encode(sample.texts, sample.pairs)]
        else:
            texts = sample.texts
            if sample.pairs is not None:
                texts = [f"{first} {second}" for first, second in zip(texts, sample.pairs, strict=True)]
            lengths = [min(max_length, round(TOKENS_A_WORD * len(text.split())) + 2) for text in texts]
        counts.append(round(float(np.mean(lengths)) * len(split)))
    return counts[0], counts[1]
