"""`multipress convert`: a pickle checkpoint to safetensors, in a limited child process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["convert"]


def convert(
    model: Annotated[str, typer.Argument(help="Folder, short name or hub id of a model that holds only a pickle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to make.")],
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model folders.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="Time limit.")] = 600,
) -> None:
    """Turn a pickle checkpoint into safetensors."""
    from multipress.models.convert import convert_pickle

    typer.echo(f"{convert_pickle(model, out, models_dir=models_dir, seconds=seconds)}: converted and checked")
