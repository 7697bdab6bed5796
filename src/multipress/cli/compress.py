"""`multipress compress`: from a model and a budget to one winner."""

from __future__ import annotations

import json
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multipress.plain_text import plain
from multipress.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    from multipress.budget.told import Compressed

__all__ = ["compress"]


def compress(
    model: Annotated[str, typer.Argument(help="A fine-tuned classifier or an encoder: short name, folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make: the winner.")],
    task: Annotated[str, typer.Option(help="A registered task, such as sst2 (see `list tasks`).")] = "",
    train_file: Annotated[str, typer.Option("--train", help="Training rows: CSV, TSV, JSON lines or Parquet.")] = "",
    dev_file: Annotated[str, typer.Option("--dev", help="Validation rows, to select by.")] = "",
    test_file: Annotated[
        str, typer.Option("--test", help="Rows to report the winner on; left out: half of the validation rows.")
    ] = "",
    unlabeled: Annotated[
        str, typer.Option(metavar="FILE", help="Texts without labels, in place of rows: the model itself labels them.")
    ] = "",
    text: Annotated[list[str] | None, typer.Option(help="Text column; give it twice for pairs.")] = None,
    label: Annotated[str, typer.Option(help="Label column.")] = "",
    target: Annotated[str, typer.Option(help="classes or number; found from the labels if left out.")] = "",
    metric: Annotated[str, typer.Option(help="The metric that is the score, such as macro_f1.")] = "",
    max_mb: Annotated[float | None, typer.Option(help="Most MB (10^6 bytes) of the whole package.")] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(help="Most ms here for one text of 128 tokens (--max-length, if less), one thread, in integers."),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Least score, from 0 to 1.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Most that the score may fall; 0.01 is one point.")] = None,
    time_limit: Annotated[float, typer.Option(help="Minutes that the search may take, about.")] = 30.0,
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the rows of a try; 0: as the time allows.")] = 0,
    learn_from: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="Runs of earlier studies or searches, to begin with what was best there."),
    ] = None,
    max_length: Annotated[int, typer.Option(min=3, help="Tokens kept of a row.")] = TrainingSpec.max_length,
    max_train_rows: Annotated[int, typer.Option(min=0, help="Train on a seeded sample; 0: all.")] = 0,
    max_eval_rows: Annotated[int, typer.Option(min=0, help="Take a seeded sample of the validation rows; 0: all.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with glue/<task>/<split>.parquet.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model folders.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find the best model that keeps to a budget of size, latency, score and time; the same command goes on."""
    from multipress.budget.limits import Budget

    budget = Budget(max_mb, max_ms, min_score, max_drop, time_limit)  # what cannot be is said before torch is imported
    from multipress.budget.asked import Asked
    from multipress.budget.fitting import fit
    from multipress.cli.progress import Rounds
    from multipress.cli.report import write_report
    from multipress.engines.job import Places

    data = DataSpec(
        task=task,
        train=train_file,
        dev=dev_file,
        text=tuple(text or ()),
        label=label,
        target=target,
        metric=metric,
        max_train_rows=max_train_rows,
        max_eval_rows=max_eval_rows,
    )
    asked = Asked(model, data, test_file, max_length, epochs, unlabeled, tuple(learn_from or ()))
    with Rounds() as show:
        found = fit(
            asked,
            budget,
            out,
            places=Places(data_dir, models_dir),
            on_note=show.note,
            on_begin=show.begin,
        )
    page = found.store.parent / "report.html" if find_spec("scipy") else None
    if page is None:
        runs = shlex.quote(str(found.store))
        typer.echo(
            'No page of the tries was written: it needs pip install "multipress[report]". Then: '
            f"multipress report {runs} -o page.html",
            err=True,
        )
    else:
        write_report(found.store, page)
    if as_json:
        typer.echo(json.dumps({**found.to_json(), "report": str(page) if page else None}, indent=2))
    else:
        _print(found, out, page)


def _print(found: Compressed, out: Path, page: Path | None) -> None:
    comparison = found.comparison
    typer.echo(f"{out}: {found.why}")
    typer.echo(f"On {comparison.num_rows:,} rows that no choice of a try has seen:")
    typer.echo(comparison.table())
    if found.alone_ms is not None:
        typer.echo(
            f"By itself, in integers, it takes {found.alone_ms:.2f} ms for such a text. In the table the models take "
            "turns, and each finds its weights out of the processor's memory."
        )
    typer.echo(f"Against the model before: {comparison.change}.")
    if comparison.unseen:
        before, after, rows = comparison.unseen
        typer.echo(f"  on the {rows:,} rows that are not also among the others: {before:.4f} before, {after:.4f} after")
    for name, was, now in comparison.worst_classes():
        typer.echo(f"  recall of {plain(name)} fell from {was:.3f} to {now:.3f}")
    for example in comparison.examples:
        labels = {key: plain(example[key]) for key in ("before", "after", "label")}
        right = f"; it is {labels['label']}" if comparison.is_labeled else ""
        typer.echo(f"  {plain(example['text'])[:90]!r}: {labels['before']} before, {labels['after']} after{right}")
    more = " The same command goes on; with a longer --time-limit tries may learn longer." if found.ran_out else ""
    typer.echo(f"How the search ended: {found.ended}{more}")
    if found.guesses:
        typer.echo("It is no better than always guessing the most common label: ask for more MB, or give more time.")
    if found.missed:
        typer.echo(
            f"Measured anew it does not keep to the budget: {'; '.join(found.missed)}. By the rows and the timing that "
            "it was chosen by it did, and of many tries those that just pass are lucky ones. Where it matters ask for "
            "more, or give more validation rows."
        )
    if page:
        typer.echo(f"All tries: {page}")
