"""One of the two artifacts of a comparison: opened and named; and which layer of the other is as deep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multipress.analysis.cells import read_cells
from multipress.artifact import MANIFEST, Artifact, is_artifacts, open_artifact
from multipress.checkpoint import save_model
from multipress.errors import ModelError
from multipress.models import load_pretrained
from multipress.models.families import family_of
from multipress.models.pretrained import identify
from multipress.reproducibility import file_sha256
from multipress.store.table import asked_methods
from multipress.tasks import Task

__all__ = ["Side", "open_side", "same_depth", "stored", "told_apart"]

_LONGEST = 512  # tokens of a row of a model that is no artifact


@dataclass(frozen=True)
class Side:
    """An artifact of a comparison.

    Args:
        artifact: The opened artifact.
        label: Its model, task, methods and seed in few words; its folder's name if it does not say. Beside others see
            `told_apart`.
        sha256: Hash of its manifest, which has the hashes of all else.
        given: What the user called it.
    """

    artifact: Artifact
    label: str
    sha256: str
    given: str

    @property
    def run_id(self) -> str:
        """The run that made it; empty for none."""
        return str(self.artifact.facts.get("run_id", ""))


def stored(name: str, folder: Path) -> Path:
    """The folder of an artifact; that of a model as users have it, with its weights rounded to 16 bits, is made.

    Args:
        name: An artifact's folder; or a model's folder, short name or hub id. An encoder may have no head.
        folder: Where artifacts of models are made.

    Raises:
        ModelError: it is neither, or the name of a translator that is to be made.
    """
    path = Path(name)
    if (path / MANIFEST).is_file() or (path.is_dir() and not _is_model(path)):
        return path  # what is wrong with it is told where it is opened
    checked = identify(name)
    if not checked.tokenizer_json:
        raise ModelError(f"{name} is a shape, and has no weights yet. Name a trained model or an artifact.")
    writes = family_of(checked.config).writes
    labels = () if writes else checked.label_names or tuple(map(str, range(max(2, checked.num_labels))))
    pretrained = load_pretrained(name, label_names=labels, seed=0)
    kind = ("text", "bleu") if writes else ("classes", "accuracy")
    task = Task(path.name, kind[0], labels, (kind[1],), kind[1])
    facts = {"run_id": "", "task": task.to_json(), "max_length": min(checked.max_length or _LONGEST, _LONGEST)}
    made = folder / pretrained.sha256[:12] / path.resolve().name
    if not made.exists():
        save_model(made, pretrained.model, tokenizer_json=pretrained.tokenizer_json, facts=facts)
    return made


def _is_model(folder: Path) -> bool:
    """Whether it has the `config.json` of a model, and not what is left of an artifact."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return False
    except ValueError:
        return True
    return not is_artifacts(config)


def open_side(folder: Path, given: str = "") -> Side:
    """Open an artifact; `given` is what the user called it, if not the folder.

    Raises:
        ArtifactError: it is damaged or none.
    """
    artifact = open_artifact(folder)
    (label,) = _labels([artifact])
    return Side(artifact, label, file_sha256(artifact.folder / MANIFEST), given or str(folder))


def _labels(artifacts: Sequence[Artifact]) -> list[str]:
    """Names with the settings that differ between the artifacts; that weights went at random is always said."""
    rows = [_asked(artifact) for artifact in artifacts]
    different = [row for number, row in enumerate(rows) if row is not None and row not in rows[:number]]
    twins = [_by_magnitude(row) for row in different if _importance(row) != "magnitude"]
    different += [row for row in twins if row not in different]
    names = [f"{cell.model} {cell.task} {cell.label} seed {cell.seed}" for cell in read_cells(different)]
    return [
        artifact.folder.resolve().name if row is None else names[different.index(row)]
        for artifact, row in zip(artifacts, rows, strict=True)
    ]


def _importance(row: dict[str, Any]) -> str:
    return str(row["settings"].get("pruning", {}).get("importance", "magnitude"))


def _by_magnitude(row: dict[str, Any]) -> dict[str, Any]:
    """The same with the smallest weights pruned."""
    pruning = row["settings"]["pruning"] | {"importance": "magnitude"}
    return row | {"settings": row["settings"] | {"pruning": pruning}}


def _asked(artifact: Artifact) -> dict[str, Any] | None:
    """What was asked for, as a row of a study's table; None if the artifact does not say."""
    spec = artifact.facts.get("spec")
    if not isinstance(spec, dict) or not spec.get("model"):
        return None
    return {
        "run_id": "",
        "model": spec["model"],
        "task": artifact.facts["task"]["name"],
        **asked_methods(spec),
        "seed": spec.get("seed"),
        "state": "done",
        "score": None,
    }


def same_depth(count: int, of: int) -> list[int]:
    """For each of `count` layers, embeddings first, the layer of `of` that is as deep; half way between, the upper."""
    last = max(1, count - 1)
    return [(2 * layer * (of - 1) + last) // (2 * last) for layer in range(count)]


def told_apart(sides: Sequence[Side]) -> list[str]:
    """A name for each side that no other has: its label, with settings that differ; its run or folder if need be."""
    labels = _labels([side.artifact for side in sides])
    return [
        label if labels.count(label) == 1 else f"{label} ({side.run_id or side.given})"
        for side, label in zip(sides, labels, strict=True)
    ]
