"""The tasks of the GLUE benchmark (Wang et al. 2019) but WNLI, each a line of `GLUE`.

The rows come from the first of these that has them: `<data_dir>/glue/<task>/{train,validation}.parquet`, the
same under the folder in `MULTIPRESS_DATA`, the Hugging Face hub (`nyu-mll/glue`, needs `datasets`). GLUE's
test labels are not public, so that the validation split is what is scored on.

`score` is the accuracy, for CoLA too, as in the paper (Movva et al. 2022; its mean scores are only possible so), and
the Pearson correlation for STS-B; GLUE's own metrics stand beside it. MNLI has two validation splits: `mnli` is scored
on the matched one, `mnli_mismatched` is the same training rows with the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multipress.errors import DataError
from multipress.tasks.base import Task
from multipress.tasks.files import Table
from multipress.tasks.labels import Label, read_labels
from multipress.tasks.rows import Rows, accept_rows
from multipress.tasks.sources import find_tables

__all__ = ["GLUE", "GlueTask", "load_glue"]

HUB_NAME = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """What the benchmark says about one task.

    Args:
        text: Its one or two text columns.
        labels: Class names in the order of the official label numbers; empty for a number.
        metrics: Official metrics.
        score: The metric that is `score`.
        dev: Name of the split that is scored on.
        config: Name of the data set in the benchmark, where it is not the task's.
    """

    text: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    score: str = "accuracy"
    dev: str = "validation"
    config: str = ""


_MNLI = (("premise", "hypothesis"), ("entailment", "neutral", "contradiction"))
_TWO_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

GLUE = {
    "cola": GlueTask(("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    "sst2": GlueTask(("sentence",), ("negative", "positive")),
    "mrpc": GlueTask(_TWO_SENTENCES, ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "stsb": GlueTask(_TWO_SENTENCES, (), ("pearson", "spearman"), "pearson"),
    "qqp": GlueTask(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "mnli": GlueTask(*_MNLI, dev="validation_matched"),
    "mnli_mismatched": GlueTask(*_MNLI, dev="validation_mismatched", config="mnli"),
    "qnli": GlueTask(("question", "sentence"), _ENTAILMENT),
    "rte": GlueTask(_TWO_SENTENCES, _ENTAILMENT),
}


def load_glue(name: str, data_dir: Path | None = None) -> tuple[Task, Rows, Rows]:
    """The task, its train rows and its validation rows.

    Args:
        name: A key of `GLUE`.
        data_dir: Folder that holds `glue/<task>/<split>.parquet`.

    Raises:
        DataError: no folder has the task and the hub cannot be reached, or the rows are not the task's.
        MissingExtraError: pyarrow, or `datasets` where the hub is needed, is not installed.
    """
    facts = GLUE[name]
    target = "classes" if facts.labels else "number"
    task = Task(name, target, facts.labels, facts.metrics, facts.score, len(facts.text) == 2)
    train, dev = (_rows(table, facts) for table in _tables(name, facts, data_dir))
    return task, train, dev


def _rows(table: Table, facts: GlueTask) -> Rows:
    lacking = {*facts.text, "label"} - set(table.names)
    if lacking:
        raise DataError(
            f"{table.source} lacks {', '.join(sorted(lacking))}; its columns: "
            f"{', '.join(map(repr, table.names))}. Its rows should be those of {HUB_NAME}."
        )
    labels: list[Label] = read_labels(table, "label")
    if facts.labels:
        labels = [_official_name(label, facts.labels, table, row) for row, label in enumerate(labels)]
    return accept_rows(table, facts.text, labels)


def _official_name(label: Label, names: tuple[str, ...], table: Table, row: int) -> Label:
    """The name of an official label number; a name stays a name, so a file with names is mapped by them."""
    if label == -1:
        return None
    if isinstance(label, int):
        if not 0 <= label < len(names):
            raise DataError(f"{table.where(row)}: the label is {label}, but there are {len(names)} classes: {names}.")
        return names[label]
    return label


def _tables(name: str, facts: GlueTask, data_dir: Path | None) -> list[Table]:
    config = facts.config or name
    return find_tables(config, f"glue/{config}", ("train", facts.dev), data_dir, (HUB_NAME, config))
