"""`multipress measure`: quality, bytes, latency and memory of an artifact, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multipress.errors import InputError
from multipress.plain_text import plain

if TYPE_CHECKING:
    from multipress.artifact import Artifact
    from multipress.records import Measurement

__all__ = ["measure"]


def measure(
    artifact: Annotated[Path, typer.Argument(help="Folder of an artifact.")],
    task: Annotated[str, typer.Option("--task", help="Score on a registered task.")] = "",
    data: Annotated[str, typer.Option("--data", help="Score on a file of labelled rows.")] = "",
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Text column of the file; give it twice for a pair.")
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Label column of the file.")] = "",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder of the registered tasks' data.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads to compute with.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often each batch is timed.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure quality, bytes, latency and memory."""
    from multipress.artifact import open_artifact
    from multipress.measure import measure_memory, measure_size, measure_speed

    opened = open_artifact(artifact)
    rows = [
        *_quality(opened, task, data, (tuple(text or ()), label), data_dir, threads),
        *measure_size(opened),
        *measure_speed(opened, threads=threads, repeats=repeats),
        *measure_memory(opened),
    ]
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
        return
    for row in rows:
        shape = f"{row.context['batch_size']} x {row.context['length']}" if "length" in row.context else ""
        value = f"{row.value:,}" if isinstance(row.value, int) else f"{row.value:.4f}"
        typer.echo(f"{row.name:24} {value:>16} {row.unit:6} {shape}".rstrip())


def _quality(
    artifact: Artifact,
    task: str,
    data: str,
    columns: tuple[tuple[str, ...], str],
    data_dir: Path | None,
    threads: int,
) -> list[Measurement]:
    from multipress.cli.evaluate import evaluate_artifact, find_task
    from multipress.records import Measurement

    try:
        task_name = find_task(artifact, task, data)
        result = evaluate_artifact(artifact, task_name, data, *columns, data_dir=data_dir, threads=threads)
    except InputError as error:
        if task or data:
            raise
        # Nobody asked for these rows, so the other numbers are given without them.
        typer.echo(plain(f"warning: no quality was measured: {error}"), err=True)
        return []
    context = {key: result[key] for key in ("task", "rows", "truncated_rows")}
    run_id = str(artifact.facts.get("run_id", ""))
    values = result["metrics"] | {"score": result["score"]}
    return [Measurement(run_id, name, value, "share", context) for name, value in values.items()]
