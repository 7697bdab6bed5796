"""The identity of a run: everything beside its spec that can change its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multipress.artifact import FORMAT_VERSION
from multipress.methods import get_method
from multipress.packing import VERSION as PACKING_VERSION
from multipress.precision import route
from multipress.reproducibility import file_sha256, library_versions
from multipress.spec import RunSpec, run_id
from multipress.train import LOOP_VERSION

__all__ = ["LIBRARIES", "THREADS", "identity_facts", "identity_of"]

THREADS = 1  # of every run: another number of threads gives other weights
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "onnxruntime", "constriction", "zstandard")


def identity_facts(spec: RunSpec, *, model_sha256: str, data_sha256: str) -> dict[str, Any]:
    """What the spec cannot know of a run, as plain JSON values.

    Args:
        spec: The run.
        model_sha256: Hash of the model's weights, config and tokenizer.
        data_sha256: Hash of the rows and label names.
    """
    return {
        "model": model_sha256,
        "data": data_sha256,
        "methods": {name: get_method(name).version for name in spec.method_names},
        "loop": LOOP_VERSION,
        "packing": PACKING_VERSION,
        "artifact": FORMAT_VERSION,
        "libraries": library_versions(*LIBRARIES),
        "route": route(),
        "threads": THREADS,
    }


def identity_of(spec: RunSpec, *, model_sha256: str, data_sha256: str) -> str:
    """The run_id of a run."""
    return run_id(spec, identity_facts(spec, model_sha256=model_sha256, data_sha256=data_sha256))


def artifact_sha256(folder: Path) -> str:
    """Identity of an artifact: the hash of its manifest, which holds the hashes of all its files."""
    return file_sha256(folder / "manifest.json")
