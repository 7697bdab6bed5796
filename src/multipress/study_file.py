"""A study as a TOML file says it; standard library only."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from multipress.errors import SpecError
from multipress.spec import DataSpec, Stages, StudySpec, TrainingSpec
from multipress.tickets import TicketSpec

__all__ = ["parse_study", "read_study"]


def read_study(path: Path) -> StudySpec:
    """Read a study file.

    Raises:
        SpecError: the file is missing, is not TOML, or holds an unknown key or a value of the wrong kind; the
            message names the known keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"There is no study file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as text: {error}.") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not TOML: {error}.") from None
    return parse_study(document, path.parent)


def parse_study(document: dict[str, Any], folder: Path = Path()) -> StudySpec:
    """The study that a TOML document describes; raises `SpecError` as `read_study` does.

    Args:
        document: What the file holds.
        folder: Where it lies: paths of data files start there.
    """
    _check_keys(document, "the study file", {"study", "models", "tasks", "training", "methods", "tickets"})
    study = _table(document, "study", {"name", "seeds", "report_to"})
    models = _table(document, "models", {"names"})
    tasks = _table(document, "tasks", {"names", "metric", *_DATA_KEYS, *_FILE_KEYS})
    known_training = {f.name for f in dataclasses.fields(TrainingSpec)} - {"learning_rate"}
    training = _table(document, "training", known_training | {"learning_rates", "shared_start"}, required=False)
    methods = document.get("methods", {})
    if not isinstance(methods, dict):
        raise SpecError("[methods] must be a table.")
    settings = {key: value for key, value in methods.items() if key != "subsets"}
    for key, value in settings.items():
        if not isinstance(value, dict):
            raise SpecError(
                f"methods.{key} is {value!r}, but must be a table of settings such as [methods.pruning]; "
                "the only other key is subsets."
            )
    rates = training.pop("learning_rates", [TrainingSpec.learning_rate])
    shared_start = training.pop("shared_start", 0.0)
    if isinstance(shared_start, bool) or not isinstance(shared_start, (int, float)) or not 0 <= shared_start < 1:
        raise SpecError(f"training.shared_start is {shared_start!r}, but must be a share from 0 to below 1.")
    tickets = _tickets(document)
    if tickets and shared_start:
        raise SpecError("[tickets] and training.shared_start do not go together: rounds start from a whole training.")
    return StudySpec(
        name=_text(study, "study.name", "name"),
        models=tuple(_texts(models, "models.names", "names")),
        data=tuple(_data(tasks, folder)),
        seeds=tuple(_whole_numbers(study.get("seeds", [0]), "study.seeds")),
        training=TrainingSpec(**training),
        learning_rates=tuple(_rates(rates)),
        subsets=_subsets(methods.get("subsets", "all")),
        shared_start=float(shared_start),
        tickets=tickets,
        methods=settings,
        report_to=tuple(_texts(study, "study.report_to", "report_to")) if "report_to" in study else (),
    )


_DATA_KEYS = ("max_train_rows", "max_eval_rows", "sample_seed")
_FILE_KEYS = (
    "train",
    "dev",
    "text",
    "label",
    "labels",
    "target",
)  # a task of the user's own, beside or in place of names


def _data(tasks: dict[str, Any], folder: Path) -> Iterator[DataSpec]:
    """The tasks: those named, and the user's own files if there are some."""
    own = {key: tasks[key] for key in _FILE_KEYS if key in tasks}
    names = _texts(tasks, "tasks.names", "names") if "names" in tasks or not own else []
    limits = {key: _limits(tasks[key], f"tasks.{key}", names) for key in _DATA_KEYS if key in tasks}
    metrics = _metrics(tasks, names) if "metric" in tasks else {}

    def limited(name: str) -> DataSpec:
        chosen: dict[str, Any] = {key: by_task.get(name, 0) for key, by_task in limits.items()}
        return DataSpec(metric=metrics.get(name, ""), **chosen)

    yield from (replace(limited(name), task=name) for name in names)
    if own:
        if not {"train", "dev"} <= set(own):
            raise SpecError(
                "Your own rows need both train and dev under [tasks]: two files, such as train.csv and dev.csv."
            )
        named = {key: _text(tasks, f"tasks.{key}", key) for key in own if key not in ("text", "labels")}
        yield replace(
            limited(""),
            train=str(folder / _text(tasks, "tasks.train", "train")),
            dev=str(folder / _text(tasks, "tasks.dev", "dev")),
            text=tuple(_texts(tasks, "tasks.text", "text")) if "text" in own else (),
            label=named.get("label", ""),
            labels=tuple(_texts(tasks, "tasks.labels", "labels")) if "labels" in own else (),
            target=named.get("target", ""),
        )


def _metrics(tasks: dict[str, Any], names: list[str]) -> dict[str, str]:
    """The metric of each task by name, and of own files by the empty name; a table names only some tasks."""
    if not isinstance(tasks["metric"], dict):
        return dict.fromkeys([*names, ""], _text(tasks, "tasks.metric", "metric"))
    table: dict[str, Any] = tasks["metric"]
    _check_keys(table, "tasks.metric, a table of metrics by the tasks in tasks.names", set(names))
    return {name: _text(table, f"tasks.metric.{name}", name) for name in table}


def _limits(value: Any, where: str, names: list[str]) -> dict[str, int]:
    """The number for each task by name, and for own files by the empty name; a table names only some tasks."""
    by_task = value if isinstance(value, dict) else dict.fromkeys([*names, ""], value)
    if not by_task:
        raise SpecError(f"{where} is an empty table, which limits no task.")
    for name, number in by_task.items():
        if isinstance(value, dict) and name not in names:
            known = ", ".join(names) or "none; write a number for your own files"
            raise SpecError(f"{where} names the task {name!r}, which is not in tasks.names: {known}.")
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise SpecError(
                f"{where} is {value!r}, but must be a whole number of at least 0, or a table of such numbers by task."
            )
    return by_task


def _check_keys(table: dict[str, Any], where: str, known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise SpecError(f"Unknown key {key!r} in {where}; known are: {', '.join(sorted(known))}.")


def _table(document: dict[str, Any], name: str, known: set[str], required: bool = True) -> dict[str, Any]:
    table = document.get(name)
    if table is None:
        if required:
            raise SpecError(f"The study file has no [{name}] table; it holds: {', '.join(sorted(known))}.")
        return {}
    if not isinstance(table, dict):
        raise SpecError(f"{name} must be a table, written [{name}].")
    _check_keys(table, f"[{name}]", known)
    return dict(table)


def _text(table: dict[str, Any], where: str, key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise SpecError(f"{where} is {value!r}, but must be a text.")
    return value


def _texts(table: dict[str, Any], where: str, key: str) -> list[str]:
    values = table.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise SpecError(f"{where} is {values!r}, but must be a list of names.")
    if len(set(values)) < len(values):
        raise SpecError(f"{where} holds a name twice: {values}.")
    return values


def _whole_numbers(values: Any, where: str) -> list[int]:
    whole = isinstance(values, list) and values
    if not whole or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
        raise SpecError(f"{where} is {values!r}, but must be a list of whole numbers of at least 0.")
    if len(set(values)) < len(values):
        raise SpecError(f"{where} holds a number twice: {values}.")
    return list(values)


def _rates(values: Any) -> list[float]:
    if not isinstance(values, list) or not values:
        raise SpecError(f"training.learning_rates is {values!r}, but must be a list of numbers.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise SpecError(f"training.learning_rates holds {value!r}, but a rate is between 0 and 1.")
    return [float(value) for value in values]


def _subsets(value: Any) -> tuple[tuple[str, ...] | Stages, ...] | str:
    if value == "all":
        return "all"
    if not isinstance(value, list) or not value or not all(_is_subset(row) for row in value):
        raise SpecError(
            f'methods.subsets is {value!r}, but must be "all" or lists of method names such as '
            '[[], ["quantization"], ["quantization", "distillation"]]; a list of such lists, such as '
            '[["pruning"], ["quantization"]], is a chain.'
        )
    return tuple(tuple(tuple(one) if isinstance(one, list) else one for one in row) for row in value)


def _is_subset(row: Any) -> bool:
    """Whether a value is a list of names, or of such lists."""

    def names(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)

    return names(row) or (isinstance(row, list) and all(names(stage) for stage in row))


def _tickets(document: dict[str, Any]) -> TicketSpec | None:
    if "tickets" not in document:
        return None
    table = _table(document, "tickets", {field.name for field in dataclasses.fields(TicketSpec)})
    if "rounds" not in table:
        raise SpecError("[tickets] needs rounds: how many.")
    for name in ("rewind", "importance"):
        if name in table:
            one_or_many = table[name] if isinstance(table[name], list) else [table[name]]
            table[name] = tuple(_texts({name: one_or_many}, f"tickets.{name}", name))
    for name in ("rate_to", "weight_rounds"):
        if name in table:
            table[name] = tuple(table[name]) if isinstance(table[name], list) else (table[name],)
    return TicketSpec(**table)
