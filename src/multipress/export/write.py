"""Write one export of an artifact: into a folder beside, compared with the artifact, then moved to its place."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import Artifact
from multipress.durable import make_folder, write_json, write_text
from multipress.errors import InputError, RunError
from multipress.export.card import export_card
from multipress.export.files import Export, read_export
from multipress.export.model_file import write_model
from multipress.measure.parity import EXACT, ROUNDED, Parity, compare_logits, drift
from multipress.measure.rival import rival_session
from multipress.reproducibility import computer, file_sha256, library_versions
from multipress.runtime import Predictor
from multipress.runtime.graph_file import read_graph
from multipress.runtime.session import Session
from multipress.tasks import Split, Task

__all__ = ["REPORT", "Rows", "check_source", "export_artifact"]

REPORT = "export.json"


@dataclass(frozen=True)
class Rows:
    """Rows on which an export is compared with its artifact.

    Args:
        name: What they are, for the report.
        texts: The (first) text of each row.
        pairs: The second text of each row.
        split: The same rows with labels in the artifact's order, if there are labels.
    """

    name: str
    texts: list[str]
    pairs: list[str] | None = None
    split: Split | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Comparison:
    """The artifact's own answers, to hold others against."""

    artifact: Artifact
    rows: Rows
    logits: np.ndarray

    def of(self, session: Session) -> Parity:
        """How a model differs."""
        found = Predictor(self.artifact, session=session).logits(self.rows.texts, self.rows.pairs)
        return compare_logits(self.logits, found, Task.from_json(self.artifact.facts["task"]), self.rows.split)


def export_artifact(
    artifact: Artifact,
    export: Export,
    out: Path,
    rows: Rows,
    *,
    allow_drift: bool = False,
    rival: bool = False,
) -> dict[str, Any]:
    """Write an export into a folder, which may hold others of the same artifact.

    The file is opened again and compared with the artifact before it gets its place; what fails leaves nothing.

    Args:
        artifact: The artifact.
        export: What to write.
        out: The folder; made if needed.
        rows: Rows to compare on.
        allow_drift: Whether a file beyond the bound is written nevertheless.
        rival: Whether to compare ONNX Runtime's own dynamic int8 of the same model too; needs the onnx library.

    Returns:
        The report, as it stands in `export.json`: for each model in the folder `parity`, `rival`, sizes and hashes;
        and `drift`, in what a file that was kept by `allow_drift` is beyond the bound.

    Raises:
        InputError: the folder holds something else, or the artifact cannot be exported.
        RunError: the file's answers are not the artifact's.
        StoreError: the folder cannot be made.
        MissingExtraError: OpenVINO is needed and not installed.
    """
    report = _report(artifact, out)
    with _made(out), tempfile.TemporaryDirectory(dir=out, prefix=".export-") as beside:
        folder = Path(beside)
        write_model(artifact, export, folder)
        reference = Predictor(artifact).logits(rows.texts, rows.pairs)
        comparison = _Comparison(artifact, rows, reference)
        parity = comparison.of(read_export(folder, export, artifact))
        bound = ROUNDED if export.is_rounded(artifact) else EXACT
        faults = drift(parity, bound, float(np.abs(reference).max(initial=0)))
        if faults and not allow_drift:
            raise RunError(
                f"{export.file} does not give the artifact's answers: {'; '.join(faults)}. Nothing was written. "
                f"To keep it nevertheless, add --allow-drift.{_other_way(artifact, export)}"
            )
        entry: dict[str, Any] = {
            "compared_on": rows.name,
            "parity": parity.to_json(),
            "drift": faults,
            "rival": comparison.of(rival_session(artifact)).to_json() if rival else None,
            "reduced_range": export.reduced_range,
            "files": {name: _facts(folder / name) for name in export.files},
            "computer": computer(),
            "versions": library_versions("multipress", "onnxruntime", "openvino"),
        }
        for name in export.files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(out / name)
    report["models"][export.file] = entry
    _write_rest(artifact, out, report)
    return report


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder, and takes it away where what follows fails and left nothing in it."""
    is_new = not folder.exists()
    make_folder(folder)
    try:
        yield
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _other_way(artifact: Artifact, export: Export) -> str:
    """What answers as the artifact does, where this export does not."""
    if not artifact.rounds_activations or export.to == "onnx":
        return ""
    if export.precision == "int8" and not export.vnni and artifact.has_static_activations:
        return " With --vnni, for processors that have it, OpenVINO rounds as the training did."
    return " The training rounded what goes into linear layers; --to onnx keeps that."


def check_source(artifact: Artifact, folder: Path) -> None:
    """Raise `InputError` where a folder's exports are of another artifact or changed, or nothing says of which."""
    if not (folder / REPORT).is_file():
        raise InputError(f"{folder} has no {REPORT}, which says of what its exports were made. Export again.")
    for name, entry in _report(artifact, folder)["models"].items():
        for file, facts in entry["files"].items():
            if (folder / file).is_file() and _facts(folder / file) != facts:
                raise InputError(f"{folder / file} is not the file of {name} that {REPORT} tells of. Export it again.")


def _report(artifact: Artifact, out: Path) -> dict[str, Any]:
    """The report that stands in the folder, or a new one."""
    weights = artifact.manifest["files"]["model.safetensors"]["sha256"]
    made_of = {"run_id": str(artifact.facts.get("run_id", "")), "weights_sha256": weights}
    if not (out / REPORT).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} is not empty and holds no exports. Give another folder.")
        return {"artifact": made_of, "models": {}}
    try:
        report: dict[str, Any] = json.loads((out / REPORT).read_text(encoding="utf-8"))
        found, _ = report["artifact"], report["models"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{out / REPORT} is damaged. Remove the folder, or give another.") from None
    if found != made_of:
        raise InputError(f"{out} holds exports of another artifact. Give another folder.")
    return report


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _write_rest(artifact: Artifact, out: Path, report: dict[str, Any]) -> None:
    """Config, tokenizer, card, and the report last."""
    config = {key: value for key, value in artifact.config.items() if key != "quantization_config"}
    write_json(out / "config.json", config)
    write_text(out / "tokenizer.json", artifact.tokenizer_json())
    tokenizer_config = json.loads((artifact.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    # Without it transformers' tokenizers leave out the types of tokens, and pairs are read as one text.
    tokenizer_config["model_input_names"] = list(read_graph(artifact.graph()).inputs)
    write_json(out / "tokenizer_config.json", tokenizer_config)
    write_text(out / "README.md", export_card(artifact, report))
    write_json(out / REPORT, report)
