"""`multipress predict`: labels or numbers for texts, without torch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated

import typer

from multipress.errors import SettingError
from multipress.plain_text import plain

__all__ = ["predict"]


def predict(
    artifact: Annotated[Path, typer.Argument(help="Folder of an artifact.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; for a model of pairs, two a row.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Texts from a file: CSV, TSV, JSON lines, Parquet, or one a line; - is the input."),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--text", help="Text column of the file; give it twice for a pair.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads to compute with.")] = 1,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32; or int8: integer products, faster, a little rounded.")
    ] = "fp32",
    engine: Annotated[
        str, typer.Option("--engine", help="onnxruntime, or openvino where it is installed.")
    ] = "onnxruntime",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Predict the labels of texts, or translate them."""
    from multipress.runtime import open_predictor
    from multipress.runtime.predictor import TruncationWarning, told_cut

    if (file is None) == (not texts):
        raise SettingError("Give either texts or --file FILE.")
    predictor = open_predictor(artifact, threads=threads, precision=precision, engine=engine, cache=True)
    is_pair = bool(predictor.artifact.facts["task"].get("is_pair"))
    if file is None:
        rows, pairs = _split_pairs(list(texts or []), is_pair)
    else:
        from multipress.tasks import Columns, load_texts

        usual = Columns.of(predictor.artifact.facts)
        rows, pairs = load_texts(file, is_pair=is_pair, text=tuple(columns or ()), usual=usual)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # it is told below
        predictions = predictor(rows, pairs)
    words = [[bool(text.strip()) for text in row] for row in zip(*filter(None, (rows, pairs)), strict=True)]
    empty = sum(not all(row) for row in words)
    unread = predictor.num_unread - sum(not any(row) for row in words)
    for number, what in ((empty, "are empty"), (unread, "have no word that the model knows")):
        if number > 0:
            typer.echo(
                f"warning: {number} of {len(rows)} rows {what}; what is predicted for them means nothing.", err=True
            )
    if predictor.num_truncated:
        told = told_cut(predictor.num_truncated, len(rows), predictor.max_length)
        typer.echo(f"warning: {told}", err=True)
    if as_json:
        typer.echo(json.dumps([prediction.to_json() for prediction in predictions]))
        return
    shown = rows if pairs is None else [f"{first} | {second}" for first, second in zip(rows, pairs, strict=True)]
    for prediction, row in zip(predictions, shown, strict=True):
        if predictor.artifact.writes:
            typer.echo(_on_one_line(prediction.translation))
            continue
        label = "" if prediction.label is None else f"{_on_one_line(prediction.label)}\t"
        typer.echo(f"{label}{prediction.score:.4f}\t{_on_one_line(row)[:80]}")


def _on_one_line(text: str) -> str:
    return plain(" ".join(text.split()))


def _split_pairs(texts: list[str], is_pair: bool) -> tuple[list[str], list[str] | None]:
    if not is_pair:
        return texts, None
    if len(texts) % 2:
        raise SettingError(f"The model reads pairs, but {len(texts)} texts were given; give two a row.")
    return texts[::2], texts[1::2]
