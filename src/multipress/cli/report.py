"""`multipress report DIR -o FILE.html`: one self-contained page; on request its figure and tables alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multipress.cli.results import DROP, RESAMPLES, Drop, Folder, Relative, Resamples, Study, analyze_store
from multipress.errors import SettingError

if TYPE_CHECKING:
    from multipress.store import Store

__all__ = ["report", "write_report"]


def report(
    folder: Folder,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.html", help="The page to write.")],
    study: Study = "",
    drop: Drop = DROP,
    relative: Relative = False,
    resamples: Resamples = RESAMPLES,
    figure: Annotated[Path | None, typer.Option(help="Also write score against size as SVG.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table over seeds as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write every cell as CSV.")] = None,
    cards: Annotated[
        Path | None, typer.Option(help="Also write the model card of every finished run, beside its dense control.")
    ] = None,
) -> None:
    """Write one page about a study: score against size, every cell, what methods do, failures, settings."""
    write_report(folder, out, study, drop, relative, resamples, figure, markdown, csv, cards)
    typer.echo(str(out))


def write_report(
    folder: Path,
    out: Path,
    study: str = "",
    drop: float = DROP,
    relative: bool = False,
    resamples: int = RESAMPLES,
    figure: Path | None = None,
    markdown: Path | None = None,
    csv: Path | None = None,
    cards: Path | None = None,
) -> None:
    """Write the page, and what else is asked for; arguments as those of `report`."""
    from multipress.durable import write_text
    from multipress.report import cells_csv, figure_svg, provenance, report_page, table_markdown
    from multipress.report.dissection_rows import read_dissections

    if figure is not None and figure.suffix != ".svg":
        raise SettingError(
            f"--figure is {figure.name}, but this command draws .svg alone. For .png and .pdf: `multipress analyze "
            f"{folder} --figure {figure.name}`."
        )
    store, analysis = analyze_store(folder, study, resamples, drop, relative)
    studies = {name: one for name, one in store.studies().items() if study in ("", name)}
    asked: list[object] = ["multipress", "report", folder, "-o", out]
    asked += ["--study", study] * bool(study) + ["--drop", drop] * (drop != DROP) + ["--relative"] * relative
    asked += ["--resamples", resamples] * (resamples != RESAMPLES)
    command = shlex.join(map(str, asked))
    for path in filter(None, (out, figure, markdown, csv)):
        path.parent.mkdir(parents=True, exist_ok=True)
    first_runs = [group["run_ids"][0] for group in analysis["groups"]]
    origin = provenance(store, analysis["cells"])
    cells = {cell["run_id"]: cell for cell in analysis["cells"]}
    names = {name: "{model} {task} {label} seed {seed}".format_map(cells[name]) for name in first_runs}
    dissections = read_dissections(store, names)
    write_text(out, report_page(analysis, studies, origin, command, _made(store, first_runs), dissections))
    if figure is not None:
        write_text(figure, figure_svg(analysis))
    if markdown is not None:
        write_text(markdown, table_markdown(analysis["groups"]))
    if csv is not None:
        write_text(csv, cells_csv(analysis["cells"]))
    if cards is not None:
        from multipress.cli.cards import write_cards

        write_cards(store, analysis["cells"], cards)


def _made(store: Store, run_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How each run's artifact is made and where its bytes are; what cannot be read is left out."""
    from multipress.errors import MultipressError
    from multipress.measure.size import manifest_parts
    from multipress.report.command import made_by
    from multipress.spec import RunSpec
    from multipress.store import read_text

    def spec_of(run_id: str) -> RunSpec:
        return RunSpec.from_json(store.run(run_id).spec)

    found: dict[str, dict[str, Any]] = {}
    for run_id in run_ids:
        made: dict[str, Any] = {}
        try:
            made["command"] = made_by(spec_of(run_id), run_id, spec_of)
            done = store.done(run_id)
            if done is not None:
                rows = manifest_parts(json.loads(read_text(done / "artifact" / "manifest.json")))
                made["parts"] = [{name: row[name] for name in ("group", "weights", "bytes")} for row in rows]
        except (MultipressError, KeyError, TypeError, ValueError, OSError):
            pass  # a damaged run is told of as failed; the page shows the others
        found[run_id] = made
    return found
