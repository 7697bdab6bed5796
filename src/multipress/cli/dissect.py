"""`multipress dissect`: layer by layer, what differs between compressed models and the one they came from."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from multipress.cli.progress import Parts
from multipress.plain_text import plain

if TYPE_CHECKING:
    from multipress.dissect.kept import Answer
    from multipress.dissect.run import Asked
    from multipress.dissect.side import Side

__all__ = ["dissect"]


def dissect(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT...", help="Folders of artifacts; or models, as they are.")
    ],
    against: Annotated[Path, typer.Option("--against", help="The artifact or model that they are compared with.")],
    data: Annotated[
        str, typer.Option("--data", help="A file with a text column, or .txt; WikiText-2 if left out.")
    ] = "",
    text: Annotated[str, typer.Option(help="Text column; found by name if left out.")] = "",
    label: Annotated[
        str, typer.Option(help="Column of translations: what the decoders of translators give is compared too.")
    ] = "",
    probes: Annotated[
        str, typer.Option("--probes", metavar="NAME,...", help="Probe tasks, or `all`; see `list probes`.")
    ] = "",
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder of the runs that made them: rows are kept beside the runs.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE.html", help="Also write a page about it.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also write the lines with their intervals as SVG.")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Also write the rows as CSV, but of layers of different depth.")
    ] = None,
    words: Annotated[int, typer.Option("--words", min=1, help="About how many words of the text are read.")] = 10_000,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How often each probe is trained.")] = 3,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder of the probes' data.")] = None,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=1, help="Most memory for what is computed at once, beside the model.")
    ] = 1024,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads to compute with.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare hidden states, attention, zeros and what probes find, layer by layer, with another artifact's."""
    from multipress.dissect.probe_tasks import probe_names
    from multipress.dissect.run import ask, smallest_matches
    from multipress.dissect.side import open_side, stored, told_apart
    from multipress.durable import write_text
    from multipress.report.dissection import dissection_figure, dissection_page
    from multipress.report.dissection_rows import dissection_csv
    from multipress.report.dissection_words import dissection_table

    folder = data_dir or (Path(os.environ["MULTIPRESS_DATA"]) if os.environ.get("MULTIPRESS_DATA") else None)
    names = probe_names(probes)
    _check_places(out, figure, csv)
    asked = ask(
        data, words, text, label, probes=names, data_dir=folder, seeds=seeds, memory_mb=memory_mb, threads=threads
    )
    with TemporaryDirectory(prefix="multipress-dissect-") as made, Parts() as show:
        *sides, reference = (open_side(stored(str(name), Path(made)), str(name)) for name in [*artifacts, against])
        _check_sides(reference, sides)
        answers = _answers(reference, sides, asked, runs, show)
    labels = told_apart(sides)
    rows = [
        {**row.to_json(), "context": {**row.context, "artifact": label}}
        for label, (measured, _) in zip(labels, answers, strict=True)
        for row in measured
    ]
    smallest = smallest_matches([matches for _, matches in answers], labels, reference.label)
    rows += [row.to_json() for row in smallest]
    options = {"--against": against, "--data": data, "--text": text, "--label": label, "--probes": probes}
    options |= {"--data-dir": folder if probes else None, "--words": words, "--seeds": seeds}
    parts = [str(part) for option in options.items() if option[1] for part in option]
    command = shlex.join(["multipress", "dissect", *map(str, artifacts), *parts])
    files = {
        out: lambda: dissection_page(rows, command),
        figure: lambda: dissection_figure(rows),
        csv: lambda: dissection_csv(rows),
    }
    for path in filter(None, files):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, files[path]())
        typer.echo(plain(str(path)), err=as_json)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        typer.echo("\n".join(map(plain, dissection_table(rows))))


def _check_places(out: Path | None, figure: Path | None, csv: Path | None) -> None:
    """Before anything is computed."""
    from multipress.errors import SpecError

    if figure is not None and figure.suffix != ".svg":
        raise SpecError(f"--figure is {figure.name}, but this command draws .svg alone.")
    for path in filter(None, (out, figure, csv)):
        if path.is_dir() or any(place.is_file() for place in path.parents):
            raise SpecError(
                f"Nothing can be written to {path}: {'it' if path.is_dir() else 'what it is in'} is a "
                f"{'folder' if path.is_dir() else 'file'}."
            )


def _check_sides(reference: Side, sides: list[Side]) -> None:
    """Each artifact once; what is compared with itself, or with another kind of model, is said."""
    from multipress.errors import SpecError

    for number, side in enumerate(sides):
        twin = next((other for other in sides[:number] if other.sha256 == side.sha256), None)
        if twin is not None:
            raise SpecError(f"{twin.given} and {side.given} are the same artifact. Name it once.")
        if side.sha256 == reference.sha256:
            typer.echo(plain(f"{side.given} is the very artifact that it is compared with."), err=True)
        writes = [one for one in (side, reference) if one.artifact.facts["task"]["target"] == "text"]
        if len(writes) == 1:
            typer.echo(plain(f"{writes[0].given} is a translator: its encoder is compared."), err=True)


def _answers(reference: Side, sides: list[Side], asked: Asked, runs: Path | None, show: Parts) -> list[Answer]:
    """The rows of each artifact, out of the store where they are kept there."""
    from multipress.dissect.kept import check_runs, kept_rows
    from multipress.dissect.run import Dissection
    from multipress.store import Store

    store = Store(runs) if runs is not None else None
    if store is not None:
        check_runs(store, sides)
    with Dissection(reference, asked, show) as dissection:
        if store is not None:
            return [kept_rows(store, dissection, side) for side in sides]
        return [dissection.rows_of(side) for side in sides]
