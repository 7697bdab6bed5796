"""`multipress study status DIR` and `multipress study verify DIR`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["measure", "status", "verify"]

SPEED_VERSION = 1  # raise it when the same options measure something else

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, made by `study run`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show of every run its state, how often it was tried, and why it failed."""
    from multipress.plain_text import plain
    from multipress.store import Store

    runs = Store(folder).runs()
    if as_json:
        typer.echo(json.dumps([run.to_json() for run in runs], indent=2))
        return
    for run in runs:
        tried = "1 attempt" if run.attempts == 1 else f"{run.attempts} attempts"
        line = f"{run.run_id}  {run.state:<8}  {tried:<11} {_asked(run.spec)}"
        if run.why:
            line += f": {run.why}" + (" (may be tried again)" if run.retryable else "")
        typer.echo(plain(line).rstrip())
    counts = Counter(run.state for run in runs)
    typer.echo(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no runs")


def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Hash everything that claims to be done; say what is wrong and what to do.

    Exits with 1 if something is wrong.
    """
    from multipress.plain_text import plain
    from multipress.store import Store

    verdicts = Store(folder).verify()
    bad = [verdict for verdict in verdicts if verdict.problems]
    if as_json:
        typer.echo(json.dumps([verdict.to_json() for verdict in verdicts], indent=2))
    else:
        for verdict in bad:
            for problem in verdict.problems:
                typer.echo(plain(f"{verdict.run_id}: {problem}"))
            typer.echo(plain(f"{verdict.run_id}: {verdict.advice}"))
        files = sum(verdict.files for verdict in verdicts)
        done = sum(verdict.state == "done" for verdict in verdicts)
        typer.echo(f"{len(verdicts)} runs, {done} done, {files} files hashed, {len(bad)} runs damaged.")
    if bad:
        raise typer.Exit(1)


def measure(
    folder: Folder,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads to compute with.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often each batch is timed.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Measure latency and memory of every finished model, one after the other, beside its run.

    What has been measured with the same options is left alone; the numbers are those of the computer that measured
    them, and no part of the study's table.
    """
    from multipress.artifact import open_artifact
    from multipress.durable import write_text
    from multipress.errors import MultipressError
    from multipress.measure import measure_memory, measure_speed
    from multipress.plain_text import plain
    from multipress.store import Store, read_text

    store, name = Store(folder), f"speed_{threads}x{repeats}-{SPEED_VERSION}"
    rows = []
    for run in store.runs():
        done = store.done(run.run_id)
        if done is None or not (done / "artifact").is_dir():
            continue
        attempt = store.claim(run.run_id, name)
        if attempt is not None:
            try:
                artifact = open_artifact(done / "artifact")
                found = [*measure_speed(artifact, threads=threads, repeats=repeats), *measure_memory(artifact)]
                lines = [json.dumps(row.to_json(), sort_keys=True) + "\n" for row in found]
                write_text(attempt.folder / "measurements.jsonl", "".join(lines))
                attempt.commit()
            except MultipressError as error:
                typer.echo(plain(f"{run.run_id}: {error}"), err=True)
                continue
            finally:
                attempt.release()
        measured = store.done(run.run_id, name)
        if measured is None:
            typer.echo(plain(f"{run.run_id}: another process measures it."), err=True)
            continue
        here = [json.loads(line) for line in read_text(measured / "measurements.jsonl").splitlines()]
        rows += here
        if not as_json:
            typer.echo(plain(f"{run.run_id}  {_asked(run.spec)}: {_latencies(here)}"))
    if as_json:
        typer.echo(json.dumps(rows))


def _latencies(rows: list[dict[str, Any]]) -> str:
    """The median latency of each shape."""
    shown = [row for row in rows if row["name"] == "latency_p50_ms"]
    return ", ".join(f"{r['context']['batch_size']} x {r['context']['length']} {r['value']:.2f} ms" for r in shown)


def _asked(spec: dict[str, Any]) -> str:
    """Kind, model, task, methods and seed of a run on one line, of whatever the description holds."""
    from multipress.cli.progress import stages_name

    data = spec.get("data")
    task = (data.get("task") or Path(str(data.get("train", ""))).name) if isinstance(data, dict) else ""
    kind, seed = spec.get("kind", ""), spec.get("seed")
    try:
        label = stages_name(spec) if kind == "train" or spec.get("methods") else ""
    except (AttributeError, LookupError, TypeError, ValueError):
        label = "?"
    parts = [str(kind), str(spec.get("model", "")), str(task), label, "" if seed is None else f"seed {seed}"]
    return " ".join(part for part in parts if part)
