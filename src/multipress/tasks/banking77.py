"""banking77: short questions of bank customers with one of 77 intents; the sample data of the package.

Where it comes from and its licence: `data/banking77/ATTRIBUTION.md`. The official test split is the
validation split here; six of its 3,080 rows are also in train.
"""

from __future__ import annotations

from pathlib import Path

from multipress.tasks.base import Task
from multipress.tasks.files import read_table
from multipress.tasks.labels import class_order, read_labels
from multipress.tasks.rows import Rows, accept_rows

__all__ = ["load_banking77"]

_FOLDER = Path(__file__).parent / "data" / "banking77"


def load_banking77(data_dir: Path | None = None) -> tuple[Task, Rows, Rows]:
    """The task, its train rows (10,003) and its validation rows (3,080).

    Args:
        data_dir: Not used: there is one source, so that everyone has the same rows.
    """
    del data_dir
    train, dev = (_rows(f"{split}.csv") for split in ("train", "test"))
    names = class_order(train.labels)
    return Task("banking77", "classes", names, ("accuracy", "macro_f1"), "accuracy"), train, dev


def _rows(file: str) -> Rows:
    table = read_table(_FOLDER / file)
    return accept_rows(table, ("text",), read_labels(table, "label"))
