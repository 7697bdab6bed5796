"""`multipress report DIR -o FILE.html`: one self-contained page; on request its figure and tables alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, made by `study run`.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.html", help="The page to write.")],
    study: Annotated[str, typer.Option(help="Only the cells of this study.")] = "",
    figure: Annotated[Path | None, typer.Option(help="Also write score against size as SVG.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table over seeds as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write every cell as CSV.")] = None,
) -> None:
    """Write one page about a study: score against size, every cell, failures, settings."""
    from multipress.analysis import analyze_cells
    from multipress.durable import write_text
    from multipress.errors import StoreError
    from multipress.report import cells_csv, figure_svg, provenance, report_page, table_markdown
    from multipress.store import Store

    store = Store(folder)
    cells = store.cells(study)
    if not cells:
        raise StoreError(
            f"No study in {folder} has cells yet. See `multipress study status {folder}`, or run "
            f"`multipress study run SPEC.toml --runs {folder}`."
        )
    analysis = analyze_cells(cells)
    studies = {name: one for name, one in store.studies().items() if study in ("", name)}
    command = shlex.join(["multipress", "report", str(folder), "-o", str(out)])
    if study:
        command += shlex.join(["", "--study", study])
    for path in filter(None, (out, figure, markdown, csv)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, report_page(analysis, studies, provenance(store, cells), command))
    if figure is not None:
        write_text(figure, figure_svg(analysis))
    if markdown is not None:
        write_text(markdown, table_markdown(analysis["groups"]))
    if csv is not None:
        write_text(csv, cells_csv(analysis["cells"]))
    typer.echo(str(out))
