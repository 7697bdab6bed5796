"""`multipress inspect`: what an artifact holds, tensor by tensor."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multipress.errors import SettingError

if TYPE_CHECKING:
    from multipress.artifact import Artifact

__all__ = ["inspect", "inspect_artifact"]

BAR_WIDTH = 30
TOTALS = {
    "weights_bytes": "the file of the weights",
    "package_bytes": "all that must be shipped; README.md is not counted",
    "ideal_bytes": "bits times weights left, as papers count; a learned rate's at the width of its codes",
    "entropy_bound_bytes": "entropy of the integers, all else at its width",
    "dense_bytes": "all weights as float32, dropped words counted",
}


def inspect(
    artifact: Annotated[Path, typer.Argument(help="Folder of an artifact.")],
    dump: Annotated[
        Path | None, typer.Option("--dump", help="Write the stored integers and scales as .npy files there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show where the bytes are: of each tensor shape, bits, non-zeros and bytes, then the package by parts.

    `bits` is the width of the codes, `bits each` what is really stored of a weight, `share` of the whole package.
    `bound` is the entropy of the integers, each by itself, and all else at its own width: rows that are alike, and
    floats that can be packed, may take less.
    """
    from multipress.artifact import open_artifact

    opened = open_artifact(artifact)
    result = inspect_artifact(opened)
    if dump is not None:
        count = _dump(opened, dump)
        typer.echo(f"Wrote {count} arrays to {dump}.", err=True)
    if as_json:
        typer.echo(json.dumps(result))
        return
    width = max((len(row["name"]) for row in result["tensors"]), default=4)
    heads = f"{'shape':>14}  bits  bits each  {'nonzeros':>10}  {'bytes':>10}  {'bound':>10}   share"
    typer.echo(f"{'name':{width}}  {heads}")
    for row in result["tensors"]:
        shape = "x".join(map(str, row["shape"])) or "scalar"
        typer.echo(
            f"{row['name']:{width}}  {shape:>14}  {row['bits']:>4}  {row['bits_per_weight']:>9.2f}  "
            f"{row['nonzeros']:>10}  {row['bytes']:>10}  {row['entropy_bound_bytes']:>10}  {row['share']:6.1%}"
        )
    _show_groups(result["groups"])
    for name, what in TOTALS.items():
        typer.echo(f"{name:20} {result[name]:>12,}  {result[name] / 1e6:10.3f} MB  {what}")


def _show_groups(groups: list[dict[str, Any]]) -> None:
    """The parts of the package as a table with bars."""
    typer.echo(f"\n{'part':22}{'weights':>12}{'bits each':>11}{'nonzeros':>12}{'bytes':>13}{'bound':>13}  share")
    for row in groups:
        bits = f"{row['bits_per_weight']:.2f}" if row["weights"] else ""
        counts = f"{row['weights'] or '':>12}{bits:>11}{row['nonzeros'] if row['weights'] else '':>12}"
        bar = "#" * round(BAR_WIDTH * row["share"])
        typer.echo(
            f"{row['group']:22}{counts}{row['bytes']:>13}{row['entropy_bound_bytes']:>13}  {row['share']:5.1%} {bar}"
        )
    typer.echo("")


def inspect_artifact(artifact: Artifact) -> dict[str, Any]:
    """What the manifest says: all sizes of `measure_size`; shape, bits, nonzeros, bytes by tensor and by group.

    Of each tensor and group `bits_per_weight` are the bits that are stored, and `share` is that of the package's bytes.
    """
    from multipress.measure import group_sizes, measure_size

    sizes: dict[str, Any] = {row.name: row.value for row in measure_size(artifact)}
    tensors = [
        {"name": name}
        | {key: value for key, value in record.items() if key != "sha256"}
        | {
            "bits_per_weight": 8 * record["bytes"] / max(1, prod(record["shape"])),
            "share": record["bytes"] / artifact.package_bytes,
        }
        for name, record in artifact.manifest["tensors"].items()
    ]
    facts = {key: artifact.facts.get(key) for key in ("run_id", "task", "quantization", "pruned")}
    return sizes | facts | {"aliases": artifact.aliases, "tensors": tensors, "groups": group_sizes(artifact)}


def _dump(artifact: Artifact, folder: Path) -> int:
    import numpy as np

    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, tensor in artifact.tensors().items():
            arrays = {name: tensor.values} | ({} if tensor.scale is None else {f"{name}.scale": tensor.scale})
            for key, array in arrays.items():
                np.save(folder / f"{key}.npy", array, allow_pickle=False)
                count += 1
    except OSError as error:
        raise SettingError(
            f"{folder} cannot hold the arrays: {error.strerror or error}. Name another folder."
        ) from None
    return count
