"""How long a model takes to predict a batch, alone or in turns with others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np

from multipress.artifact import Artifact
from multipress.errors import SettingError
from multipress.records import Measurement
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor, open_predictor
from multipress.runtime.session import Session

__all__ = [
    "SHAPES",
    "Shape",
    "measure_speed",
    "measure_writing_speed",
    "pinned",
    "random_batch",
    "time_in_turns",
]

Shape = tuple[int, int]

# Batch size and tokens a row.
SHAPES: tuple[Shape, ...] = ((1, 32), (1, 128), (32, 128))
_NUM_WARM_UP = 3
_NAMES = {"p50": 0.5, "p95": 0.95}


def measure_speed(
    artifact: Artifact,
    shapes: Sequence[Shape] = SHAPES,
    *,
    threads: int = 1,
    repeats: int = 20,
    precision: str = "fp32",
    others: Mapping[str, Session] | None = None,
) -> list[Measurement]:
    """Median and 95th percentile of the time for one batch, tokenizing not counted.

    Rows are random token ids of full length. Shapes and models take turns, so that a slow spell of the computer meets
    all of them. With one thread, the process stays on one processor.

    Args:
        artifact: The artifact.
        shapes: Pairs of batch size and tokens a row; no more tokens are taken than the model has positions.
        threads: Threads of the runtime.
        repeats: How often each shape is timed, after 3 batches that are not counted.
        precision: `fp32` or `int8`; see `Predictor`.
        others: Further models of the same inputs to time in turns with it, by name.

    Returns:
        `latency_p50_ms` and `latency_p95_ms` of each shape; of another model with its name and a `:` before.

    Raises:
        SettingError: a shape or `repeats` is below 1.
    """
    limit = artifact.max_tokens or int(artifact.facts["max_length"])
    if repeats < 1 or any(size < 1 for shape in shapes for size in shape):
        raise SettingError(f"Batches of {list(shapes)}, {repeats} times, cannot be timed; each must be 1 or more.")
    fitting = sorted({(rows, min(tokens, limit)) for rows, tokens in shapes})
    sessions = {"": Predictor(artifact, threads=threads, precision=precision).session, **(others or {})}
    times = time_in_turns(sessions, fitting, int(artifact.config["vocab_size"]), threads=threads, repeats=repeats)
    run_id = str(artifact.facts.get("run_id", ""))
    common = {"threads": threads, "repeats": repeats, "computer": computer()}
    common |= library_versions("onnxruntime")
    found = []
    for (name, (rows, tokens)), column in times.items():
        context = {"batch_size": rows, "length": tokens, **common}
        context |= {"of": name} if name else {"precision": precision}
        before = f"{name}:" if name else ""
        for part, share in _NAMES.items():
            value = float(np.quantile(column, share))
            found.append(Measurement(run_id, f"{before}latency_{part}_ms", value, "ms", context))
    return found


def measure_writing_speed(
    artifact: Artifact,
    texts: Sequence[str],
    batches: Sequence[int] = (1, 32),
    *,
    threads: int = 1,
    repeats: int = 20,
) -> list[Measurement]:
    """Median and 95th percentile of the time in which a translator translates a batch of texts, tokenizing counted.

    Each time takes other texts, one after the other, from the beginning again where there are no more.

    Args:
        artifact: The artifact of a translator.
        texts: What is translated.
        batches: Numbers of texts at once.
        threads: Threads of the runtime.
        repeats: How often each number is timed, after one batch that is not counted.

    Returns:
        `latency_p50_ms` and `latency_p95_ms` of each number of texts.
    """
    translator = open_predictor(artifact, threads, max(batches))
    run_id = str(artifact.facts.get("run_id", ""))
    common = {"threads": threads, "repeats": repeats, "computer": computer(), **library_versions("torch")}
    found = []
    with pinned() if threads == 1 else nullcontext():
        for size in batches:
            times = []
            for number in range(repeats + 1):
                chosen = [texts[(number * size + place) % len(texts)] for place in range(size)]
                started = time.perf_counter()
                translator.outputs(chosen)
                times.append(1e3 * (time.perf_counter() - started))
            context = {"batch_size": size, **translator.decoding, **common}
            for part, share in _NAMES.items():
                value = float(np.quantile(times[1:], share))
                found.append(Measurement(run_id, f"latency_{part}_ms", value, "ms", context))
    return found


def time_in_turns(
    sessions: Mapping[str, Session], shapes: Sequence[Shape], vocabulary: int, *, threads: int, repeats: int
) -> dict[tuple[str, Shape], np.ndarray]:
    """Milliseconds (R,) of each model and shape.

    Args:
        sessions: Models by name; each computes every batch once before the next round begins.
        shapes: Pairs of batch size and tokens a row.
        vocabulary: Ids are drawn below it.
        threads: Threads of the models; one is kept on one processor.
        repeats: Rounds R, after 3 that are not counted.
    """
    batches = {shape: random_batch(*shape, vocabulary) for shape in shapes}
    times = {(name, shape): np.zeros(repeats + _NUM_WARM_UP) for name in sessions for shape in shapes}
    with pinned() if threads == 1 else nullcontext():
        for turn in range(repeats + _NUM_WARM_UP):
            for (name, shape), column in times.items():
                start = time.perf_counter()
                sessions[name].run(batches[shape])
                column[turn] = 1000 * (time.perf_counter() - start)
    return {key: column[_NUM_WARM_UP:] for key, column in times.items()}


def random_batch(rows: int, tokens: int, vocabulary: int) -> dict[str, Any]:
    """Rows of random ids, nothing padded; the same for the same numbers."""
    ids = np.random.default_rng(0).integers(vocabulary, size=(rows, tokens))
    ones, zeros = np.ones_like(ids), np.zeros_like(ids)
    return {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}


@contextmanager
def pinned() -> Iterator[None]:
    """Keeps this thread on its first processor; where a system has no way to, it does nothing."""
    before: set[int] = set()
    with suppress(AttributeError, OSError):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(before)[:1])
    try:
        yield
    finally:
        if before:
            with suppress(OSError):
                os.sched_setaffinity(0, before)
