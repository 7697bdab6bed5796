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
    from multipress.runtime.session import Session

__all__ = ["measure"]

_MAX_ROWS = 2000
# A registered task, a file with its text columns and its label column, and the folder of the tasks' data.
_Asked = tuple[str, str, tuple[tuple[str, ...], str], Path | None]


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
    precision: Annotated[
        str, typer.Option("--precision", help="fp32; or int8: all of it in integers, compared with fp32 too.")
    ] = "fp32",
    rival: Annotated[
        bool, typer.Option("--rival", help="Time ONNX Runtime's dynamic int8 of the same model in turns with it.")
    ] = False,
    exported: Annotated[
        Path | None, typer.Option("--export", help="Folder of its exports: compare and time each of them too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure quality, bytes, latency and memory."""
    from multipress.artifact import open_artifact
    from multipress.measure import measure_memory, measure_size

    opened = open_artifact(artifact)
    others = _others(opened, rival, exported, threads)
    asked = (task, data, (tuple(text or ()), label), data_dir)
    rows = [
        *_quality(opened, asked, threads, precision),
        *_parity(opened, others | _rounded(opened, threads, precision), asked),
        *measure_size(opened),
        *_speed(opened, asked, _timed(others), (threads, repeats, precision)),
        *measure_memory(opened, precision, threads),
    ]
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
        return
    for row in rows:
        shape = f"{row.context['batch_size']} x {row.context['length']}" if "length" in row.context else ""
        value = f"{row.value:,}" if isinstance(row.value, int) else f"{row.value:.4f}"
        typer.echo(f"{row.name:24} {value:>16} {row.unit:6} {shape}".rstrip())


def _speed(
    artifact: Artifact, asked: _Asked, others: dict[str, Session], how: tuple[int, int, str]
) -> list[Measurement]:
    """The time of batches; `how` is threads, repeats and precision."""
    from multipress.measure import measure_speed, measure_writing_speed

    threads, repeats, precision = how
    if not artifact.writes:
        return measure_speed(artifact, threads=threads, repeats=repeats, precision=precision, others=others)
    from multipress.cli.export import rows_to_compare

    texts = rows_to_compare(artifact, *asked, _MAX_ROWS).texts
    return measure_writing_speed(artifact, texts, threads=threads, repeats=repeats)


def _others(artifact: Artifact, rival: bool, exported: Path | None, threads: int) -> dict[str, Session]:
    """The models that are compared and timed beside the artifact, by name."""
    others: dict[str, Session] = {}
    if rival:
        from multipress.measure.rival import rival_session

        others["rival"] = rival_session(artifact, threads)
    if exported is not None:
        from multipress.export import check_source, exports_in, read_export

        found = exports_in(exported)
        if not found:
            raise InputError(f"{exported} holds no exports. Write them with `multipress export`.")
        check_source(artifact, exported)
        others |= {export.file: read_export(exported, export, artifact, threads) for export in found}
    return others


def _timed(others: dict[str, Session]) -> dict[str, Session]:
    """All but a dense twin, whose time is that of whatever loads it."""
    return {name: session for name, session in others.items() if not name.endswith(".safetensors")}


def _rounded(artifact: Artifact, threads: int, precision: str) -> dict[str, Session]:
    """The artifact itself in integers, which differ from its own numbers."""
    from multipress.runtime import Predictor

    return {} if precision == "fp32" else {precision: Predictor(artifact, threads, precision=precision).session}


def _parity(artifact: Artifact, others: dict[str, Session], asked: _Asked) -> list[Measurement]:
    """How far each of the others is from the artifact's answers."""
    if not others:
        return []
    from multipress.cli.export import rows_to_compare
    from multipress.measure.parity import compare_logits
    from multipress.records import Measurement
    from multipress.runtime import Predictor
    from multipress.tasks import Task

    rows = rows_to_compare(artifact, *asked, _MAX_ROWS)
    task = Task.from_json(artifact.facts["task"])
    reference = Predictor(artifact).logits(rows.texts, rows.pairs)
    found = []
    for name, session in others.items():
        logits = Predictor(artifact, session=session).logits(rows.texts, rows.pairs)
        parity = compare_logits(reference, logits, task, rows.split)
        context = {"of": name, "compared_on": rows.name, **parity.to_json()}
        run_id = str(artifact.facts.get("run_id", ""))
        found.append(Measurement(run_id, f"{name}:agreement", parity.agreement, "share", context))
        found.append(Measurement(run_id, f"{name}:logit_difference", parity.largest_difference, "", context))
        if parity.score_change is not None:
            found.append(Measurement(run_id, f"{name}:score_change", parity.score_change, "share", context))
    return found


def _quality(artifact: Artifact, asked: _Asked, threads: int, precision: str) -> list[Measurement]:
    from multipress.cli.evaluate import evaluate_artifact, find_task
    from multipress.records import Measurement

    task, data, columns, data_dir = asked
    try:
        task_name = find_task(artifact, task, data)
        result = evaluate_artifact(
            artifact, task_name, data, *columns, data_dir=data_dir, threads=threads, precision=precision
        )
    except InputError as error:
        if task or data:
            raise
        # Nobody asked for these rows, so the other numbers are given without them.
        typer.echo(plain(f"warning: no quality was measured: {error}"), err=True)
        return []
    context = {key: result[key] for key in ("task", "rows", "truncated_rows")} | {"precision": precision}
    run_id = str(artifact.facts.get("run_id", ""))
    values = result["metrics"] | {"score": result["score"]}
    own = {name: {"signature": signature} for name, signature in result.get("signatures", {}).items()}
    return [
        Measurement(run_id, name, value, "points" if name in own else "share", context | own.get(name, {}))
        for name, value in values.items()
    ]
