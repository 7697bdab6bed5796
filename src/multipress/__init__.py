"""Compress text encoders by every combination of pruning, quantization and distillation.

The public names are imported when first used, so that `import multipress` is fast and needs no torch:

- `compress(model, train, dev, ...)`: the best model that keeps to a budget, an artifact (extra `train`).
- `open(folder)`: a predictor for a stored artifact (no torch).
- `load(folder)`: the artifact as a torch module (extra `train`).
- `push_to_hub(folder, repo)`: an artifact to the Hugging Face hub.
- the errors of `multipress.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> (module, name there). Text, not imports: nothing is loaded before it is asked for.
_PUBLIC = {
    "compress": ("multipress.budget.compress", "compress"),
    "TruncationWarning": ("multipress.runtime.predictor", "TruncationWarning"),
    "open": ("multipress.runtime", "open_predictor"),
    "load": ("multipress.checkpoint", "load_model"),
    "push_to_hub": ("multipress.hub", "push_to_hub"),
    **{
        name: ("multipress.errors", name)
        for name in (
            "ArtifactError",
            "CheckpointError",
            "DataError",
            "DivergedError",
            "InputError",
            "MissingExtraError",
            "ModelError",
            "MultipressError",
            "NoStoreError",
            "RunError",
            "SettingError",
            "SpecError",
            "StoreError",
        )
    },
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 (every key is a text)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'multipress' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
