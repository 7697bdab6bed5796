"""`multipress shrink`: a smaller encoder out of a bigger one."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["shrink"]


def shrink(
    model: Annotated[str, typer.Argument(help="Short name, folder or hub id of the bigger encoder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to make.")],
    layers: Annotated[int, typer.Option(min=0, help="Blocks to keep; 0: all.")] = 0,
    hidden: Annotated[int, typer.Option(min=0, help="Width of the hidden state; 0: as it is.")] = 0,
    feed_forward: Annotated[int, typer.Option(min=0, help="Neurons of a block; 0: in proportion.")] = 0,
    text: Annotated[str, typer.Option(help="Plain text to recover on; else the WikiText-2 text of the package.")] = "",
    task: Annotated[str, typer.Option(help="Recover on the training texts of a registered task.")] = "",
    steps: Annotated[int, typer.Option(min=0, help="Steps of recovery, 2,048 tokens each; 0: none.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the text.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with glue/<task>/<split>.parquet.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model folders.")] = None,
) -> None:
    """Make an encoder smaller: fewer blocks, narrower, then recovered on text."""
    from multipress.cli.progress import Steps
    from multipress.errors import SettingError
    from multipress.models.catalogue import Shape
    from multipress.models.encoder import expected_shapes
    from multipress.models.pretrained import identify
    from multipress.shrink import check_family, shrink_encoder

    if not (layers or hidden or feed_forward):
        raise SettingError("Say what is to be smaller: --layers, --hidden or --feed-forward.")
    config = identify(model, models_dir).config
    check_family(config, model)
    width = hidden or config.hidden_size
    shape = Shape(
        layers or config.num_hidden_layers,
        width,
        max(1, width * config.num_attention_heads // config.hidden_size),
        feed_forward or config.intermediate_size * width // config.hidden_size,
    )
    texts = _texts(text, task, data_dir)
    with Steps() as show:
        shrink_encoder(model, shape, out, texts=texts, steps=steps, seed=seed, models_dir=models_dir, on_step=show)
    shapes = expected_shapes(identify(str(out)).config)
    millions = sum(prod(sizes) for name, sizes in shapes.items() if name.startswith("bert.")) / 1e6
    typer.echo(f"{out}: {shape.layers} layers, hidden {shape.hidden}, {millions:.1f} million parameters")


def _texts(file: str, task: str, data_dir: Path | None) -> list[str] | None:
    from multipress.errors import SettingError
    from multipress.spec import DataSpec
    from multipress.tasks import load_task, load_texts

    if file and task:
        raise SettingError("Give --text FILE or --task NAME, not both.")
    if task:
        rows = load_task(DataSpec(task=task), data_dir).train
        return [*rows.texts, *(rows.pairs or [])]
    return load_texts(file)[0] if file else None
