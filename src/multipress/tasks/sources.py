"""Where the rows of a registered task come from: a folder of Parquet files, or the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from multipress.errors import DataError, MissingExtraError
from multipress.tasks.files import Table, arrow_table, read_table

__all__ = ["find_tables"]


def find_tables(
    task: str, place: str, splits: tuple[str, str], data_dir: Path | None, hub: tuple[str, ...]
) -> list[Table]:
    """One table a split, from the first of these that has them all: `data_dir`, `MULTIPRESS_DATA`, the hub.

    Args:
        task: Name of the task, for messages.
        place: Where its `<split>.parquet` lie in a data folder, such as `glue/sst2`.
        splits: Names of the splits.
        data_dir: A data folder; None: only the one in `MULTIPRESS_DATA`.
        hub: Name of the data set on the hub, and of its part where it has several.

    Raises:
        DataError: no folder has the task and the hub cannot be reached.
        MissingExtraError: pyarrow, or `datasets` where the hub is needed, is not installed.
    """
    folders = [data_dir] if data_dir else []
    if os.environ.get("MULTIPRESS_DATA"):
        folders.append(Path(os.environ["MULTIPRESS_DATA"]))
    for folder in folders:
        files = [folder / place / f"{split}.parquet" for split in splits]
        if all(file.is_file() for file in files):
            return [read_table(file) for file in files]
    looked = " and ".join(str(folder / place) for folder in folders)
    why = f"it is not in {looked}" if looked else "no data folder was given"
    files_said = f"{place}/{splits[0]}.parquet and {splits[1]}.parquet"
    advice = f"Name a folder that holds {files_said} with --data-dir or MULTIPRESS_DATA"
    return [arrow_table(rows, f"{' '.join(hub)} {split}") for split, rows in _from_hub(task, splits, hub, why, advice)]


def _from_hub(task: str, splits: tuple[str, str], hub: tuple[str, ...], why: str, advice: str) -> list[tuple[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            f'Task {task} comes from the Hugging Face hub ({why}): pip install "multipress[train]". {advice}.'
        ) from None
    try:
        loaded: Any = datasets.load_dataset(*hub)
    except Exception as error:  # noqa: BLE001 (what it raises without a network differs by version)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"Task {task} cannot be loaded: {why}, and the Hugging Face hub cannot be reached ({reason}). "
            f"{advice}, or go online."
        ) from None
    return [(split, loaded[split].data.table) for split in splits]
