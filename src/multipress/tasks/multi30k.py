"""Multi30k, English to German: captions of photographs and their translations (Elliott et al. 2016), raw text.

29,000 pairs to train on. `multi30k` is scored on the 1,014 of the validation split, `multi30k_test2016` on the 1,000 of
the test split of 2016. For non-commercial research and education.
"""

from __future__ import annotations

from pathlib import Path

from multipress.errors import DataError
from multipress.tasks.base import Task
from multipress.tasks.files import Table
from multipress.tasks.rows import Rows, accept_rows, read_written
from multipress.tasks.sources import find_tables
from multipress.tasks.translations import METRICS

__all__ = ["MULTI30K", "load_multi30k"]

MULTI30K = {"multi30k": "validation", "multi30k_test2016": "test"}
_HUB_NAME = "bentrevett/multi30k"


def load_multi30k(name: str, data_dir: Path | None = None) -> tuple[Task, Rows, Rows]:
    """The task, its train rows and the rows to score on.

    Args:
        name: A key of `MULTI30K`.
        data_dir: Folder that holds `mt/multi30k_en_de/<split>.parquet`, with columns `en` and `de`.

    Raises:
        DataError: the rows cannot be found, or lack a column.
        MissingExtraError: pyarrow, or `datasets` where the hub is needed, is not installed.
    """
    tables = find_tables(name, "mt/multi30k_en_de", ("train", MULTI30K[name]), data_dir, (_HUB_NAME,))
    train, dev = (_rows(table) for table in tables)
    return Task(name, "text", (), METRICS, "bleu"), train, dev


def _rows(table: Table) -> Rows:
    lacking = {"en", "de"} - set(table.names)
    if lacking:
        raise DataError(f"{table.source} lacks the column {min(lacking)!r}; its columns: {', '.join(table.names)}.")
    return accept_rows(table, ("en",), read_written(table, "de"))
