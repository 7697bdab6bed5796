"""Runs that make the smaller encoders which models' names stand for, before anything is trained on them."""

from __future__ import annotations

import shutil
from pathlib import Path

from multipress.engines.job import Job
from multipress.models.catalogue import shrunk_folder, shrunk_shape
from multipress.reproducibility import file_sha256
from multipress.shrink import SHIPPED, adopt_named, make_named
from multipress.spec import DataSpec, RunSpec, run_id
from multipress.store import Store

__all__ = ["fetch_encoder", "fill_recovery", "recovery_of"]

TEXT = DataSpec(task="wikitext2")  # the text that the package brings
ENCODER = "encoder"


def recovery_of(model: str) -> Job | None:
    """The run that makes a model whose name says its shape, such as `minilm-l3-h192`; None for other models.

    Raises:
        ModelError: the name says a shape that cannot be.
    """
    if Path(model).is_dir() or shrunk_shape(model) is None:
        return None
    # What the name stands for, and no versions of libraries: once made, an encoder is kept. What trains on it has its
    # weights' hash in its own name.
    spec = RunSpec("recover", model, TEXT)
    made_from = shrunk_folder(model).parent.name  # a hash of the bigger encoder, the shape and the steps
    return Job(run_id(spec, {"model": made_from, "data": file_sha256(SHIPPED)}), spec)


def fill_recovery(spec: RunSpec, folder: Path) -> None:
    """Make the encoder where this computer does not have it yet, and put a copy into the folder of an attempt."""
    make_named(spec.model)
    shutil.copytree(shrunk_folder(spec.model), folder / ENCODER)


def fetch_encoder(model: str, store: Store) -> None:
    """Where a model's recovery is done in the store, but was made on another computer, take its encoder over."""
    job = recovery_of(model)
    if job is None or shrunk_folder(model).is_dir():
        return
    done = store.done(job.run_id)
    if done is not None:
        adopt_named(model, done / ENCODER)
