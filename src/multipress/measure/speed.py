"""How long an artifact takes to predict a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from multipress.artifact import Artifact
from multipress.errors import SettingError
from multipress.records import Measurement
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Encoding, Predictor

__all__ = ["SHAPES", "measure_speed"]

# Batch size and tokens a row.
SHAPES = ((1, 32), (1, 128), (32, 128))
_NUM_WARM_UP = 3


def measure_speed(
    artifact: Artifact,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    *,
    threads: int = 1,
    repeats: int = 20,
) -> list[Measurement]:
    """Median and 95th percentile of the time for one batch, tokenizing not counted.

    Rows are random token ids of full length. Shapes take turns, so that a slow spell of the computer meets
    all of them.

    Args:
        artifact: The artifact.
        shapes: Pairs of batch size and tokens a row; no more tokens are taken than the model has positions.
        threads: Threads of the runtime.
        repeats: How often each shape is timed, after 3 batches that are not counted.

    Returns:
        `latency_p50_ms` and `latency_p95_ms` of each shape.

    Raises:
        SettingError: a shape or `repeats` is below 1.
    """
    limit = artifact.max_tokens or int(artifact.facts["max_length"])
    if repeats < 1 or any(size < 1 for shape in shapes for size in shape):
        raise SettingError(f"Batches of {list(shapes)}, {repeats} times, cannot be timed; each must be 1 or more.")
    fitting = sorted({(rows, min(tokens, limit)) for rows, tokens in shapes})
    predictor = Predictor(artifact, threads=threads)
    ids = np.random.default_rng(0)
    vocabulary = int(artifact.config["vocab_size"])
    batches = [
        [Encoding(ids.integers(vocabulary, size=tokens).tolist(), [0] * tokens) for _ in range(rows)]
        for rows, tokens in fitting
    ]
    times_ms = np.zeros((repeats + _NUM_WARM_UP, len(batches)))
    for row in times_ms:
        for index, batch in enumerate(batches):
            start = time.perf_counter()
            predictor.run(batch)
            row[index] = 1000 * (time.perf_counter() - start)
    run_id = str(artifact.facts.get("run_id", ""))
    common = {"threads": threads, "repeats": repeats, "computer": computer()} | library_versions("onnxruntime")
    rows_out = []
    for (rows, tokens), column in zip(fitting, times_ms[_NUM_WARM_UP:].T, strict=True):
        context = {"batch_size": rows, "length": tokens, **common}
        rows_out.append(Measurement(run_id, "latency_p50_ms", float(np.median(column)), "ms", context))
        rows_out.append(Measurement(run_id, "latency_p95_ms", float(np.quantile(column, 0.95)), "ms", context))
    return rows_out
