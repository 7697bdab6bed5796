"""`multipress study run`: a grid of runs from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multipress.errors import RunError, SettingError
from multipress.plain_text import plain

__all__ = ["run"]


def run(
    spec: Annotated[Path, typer.Argument(help="The study file (TOML).")],
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one a core.")] = 0,
    engine: Annotated[str, typer.Option(help="Where runs execute: local.")] = "local",
    data_dir: Annotated[Path | None, typer.Option(help="Folder with glue/<task>/<split>.parquet.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model folders.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and run nothing.")] = False,
) -> None:
    """Run what is not done yet of a study; the same command goes on where it was stopped."""
    if engine != "local":
        raise SettingError(f"--engine is {engine!r}; this version has: local.")
    from multipress.cli.progress import Runs
    from multipress.records import Run
    from multipress.spec import read_study
    from multipress.store import Store, cell_row

    # What can be wrong without torch is found before torch is imported, which takes seconds.
    study = read_study(spec)
    store = Store(runs)
    if not dry_run:
        store.check_writable()
    from multipress.engines.job import Places
    from multipress.estimate import describe
    from multipress.study import Plan, run_study

    places = Places(data_dir, models_dir)
    if dry_run:
        typer.echo(describe(Plan(study, places, only_counts=True), store, workers))
        return
    show = Runs()

    def on_end(ended: Run, number: int, total: int) -> None:
        show(ended, number, total, cell_row(ended, store.done(ended.run_id))["score"])

    def on_note(note: str) -> None:
        typer.echo(plain(note), err=True)

    try:
        cells = run_study(study, runs, places=places, num_workers=workers, on_end=on_end, on_note=on_note)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped. What is done is kept; the same command goes on.") from None
    failed = [cell for cell in cells if cell.state != "done"]
    typer.echo(f"{len(cells) - len(failed)} of {len(cells)} cells of {study.name} are done, in {runs}.")
    if failed:
        raise RunError(
            f"{len(failed)} of {len(cells)} cells failed, first {failed[0].run_id}: {failed[0].why} "
            f"To see all: multipress study status {runs}"
        )
