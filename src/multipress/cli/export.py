"""`multipress export`: write an artifact as files that other programs open, checked against the artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multipress.errors import InputError
from multipress.plain_text import plain

if TYPE_CHECKING:
    from multipress.artifact import Artifact
    from multipress.export import Export
    from multipress.export.write import Rows

__all__ = ["export", "rows_to_compare"]


def export(
    artifact: Annotated[Path, typer.Argument(help="Folder of an artifact.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the files; it may hold other exports of it.")],
    to: Annotated[str, typer.Option("--to", help="onnx, openvino or safetensors.")] = "onnx",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32; int8 (onnx, openvino); bf16 (openvino).")
    ] = "fp32",
    task: Annotated[str, typer.Option("--task", help="Compare on a registered task; else the artifact's own.")] = "",
    data: Annotated[str, typer.Option("--data", help="Compare on a file of labelled rows.")] = "",
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Text column of the file; give it twice for a pair.")
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Label column of the file.")] = "",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder of the registered tasks' data.")] = None,
    max_rows: Annotated[int, typer.Option("--max-rows", min=1, help="Compare on the first so many rows.")] = 2000,
    reduced_range: Annotated[
        bool, typer.Option("--reduced-range", help="8-bit weights to 7 bits: faster without VNNI (onnx int8).")
    ] = False,
    vnni: Annotated[
        bool,
        typer.Option(
            "--vnni",
            help="For processors with VNNI alone, faster there; written on one that has it (int8; of OpenVINO with "
            "static scales).",
        ),
    ] = False,
    rival: Annotated[
        bool, typer.Option("--rival", help="Show the drift of ONNX Runtime's dynamic int8 beside it.")
    ] = False,
    allow_drift: Annotated[
        bool,
        typer.Option(
            "--allow-drift",
            help="Write it even if its answers are not the artifact's: in fp32 every label, logits to 1e-4 of the "
            "largest and .1 point of score; in int8 and bf16 98 % of the labels, and at most a point of score lost.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write an artifact for other programs, and check that it answers as the artifact does."""
    from multipress.artifact import open_artifact
    from multipress.export import Export, export_artifact
    from multipress.measure.parity import Parity

    opened, wanted = open_artifact(artifact), Export(to, precision, reduced_range, vnni)
    rows = rows_to_compare(opened, task, data, (tuple(text or ()), label), data_dir, max_rows)
    report = export_artifact(opened, wanted, out, rows, allow_drift=allow_drift, rival=rival)
    if as_json:
        typer.echo(json.dumps(report))
        return
    entry = report["models"][wanted.file]
    size = sum(part["bytes"] for part in entry["files"].values())
    typer.echo(f"{out / wanted.file}, {size / 1e6:.2f} MB")
    typer.echo(f"  {Parity(**entry['parity']).describe()} ({plain(rows.name)})")
    if entry["rival"] is not None:
        typer.echo(f"  ONNX Runtime's dynamic int8: {Parity(**entry['rival']).describe()}")
    for line in _advice(opened, wanted):
        typer.echo(f"note: {line}", err=True)


def _advice(artifact: Artifact, export: Export) -> Iterator[str]:
    """What a user of this file should know, and could ask for instead."""
    from multipress.runtime.products import has_exact_products

    if export.to == "safetensors" and artifact.rounds_activations:
        yield "the artifact rounds what goes into its linear layers to 8 bits; code that loads this file does not."
    if export.precision != "int8":
        return
    if not artifact.rounds_activations:
        yield (
            "its training did not round what goes into its linear layers, this file does. To train so: --method "
            "quantization:activation_bits=8,activation_scale=static."
        )
    if not (artifact.facts["quantization"] or export.to == "openvino"):
        yield "its weights were floats and are rounded to 8 bits here, untrained."
    if has_exact_products() and not export.vnni and (export.to == "onnx" or artifact.has_static_activations):
        yield "this processor has VNNI: what --vnni writes is about twice as fast here, and this file runs anywhere."


def rows_to_compare(
    artifact: Artifact,
    task: str,
    data: str,
    columns: tuple[tuple[str, ...], str],
    data_dir: Path | None,
    max_rows: int,
) -> Rows:
    """Rows on which two models are compared: those asked for, else the artifact's own task, else any text.

    Raises:
        InputError: rows were asked for and cannot be read.
    """
    from multipress.cli.evaluate import find_task
    from multipress.export.write import Rows
    from multipress.tasks import Columns, Task, load_rows, load_validation

    own = Task.from_json(artifact.facts["task"])
    try:
        name = find_task(artifact, task, data)
        if data:
            usual = Columns.of(artifact.facts)
            split = load_rows(data, task=own, text=columns[0], label=columns[1], by_number=True, usual=usual).split
        else:
            split = load_validation(name, task=own, data_dir=data_dir).split
    except InputError as error:
        if task or data:
            raise
        typer.echo(plain(f"warning: questions of banking77 stand for its rows, without a score: {error}"), err=True)
        texts = load_validation("banking77").split.texts[:max_rows]
        return Rows("questions of banking77", texts, texts[::-1] if own.is_pair else None)
    used = split.take(range(min(len(split), max_rows)))
    what = f"{'the first ' if len(used) < len(split) else ''}{len(used):,} validation rows of {name or 'the file'}"
    return Rows(what, used.texts, used.pairs, used)
