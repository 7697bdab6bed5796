"""Cells as the analysis sees them: names that fit a table, and nothing compared that differs unseen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from multipress.spec import SEARCH_NAME

__all__ = ["DENSE", "MEAN_TASK", "SIZES", "TRAINING", "Cell", "label_of", "levels_json", "read_cells", "short_name"]

DENSE = "dense"
MEAN_TASK = "mean over tasks"  # in place of a task's name; a task of that name is shown as `(mean over tasks)`
TRAINING = "training"  # the method whose level says how a search's try was trained
# Every size is reported in both: the ideal one of the paper and the bytes of the real file.
SIZES = ("ideal_bytes", "weights_bytes")

# Short name and the setting that is always shown; the order is the paper's.
_SHORT = {"quantization": ("Q", "bits"), "distillation": ("KD", ""), "pruning": ("P", "sparsity")}
_ORDER = {name: position for position, name in enumerate(_SHORT)}


@dataclass(frozen=True)
class Cell:
    """One run of a study's grid.

    Args:
        run_id: The run.
        model: Name of the model without its folder.
        task: Name of the task; where rows or training differ between cells of one task, with what differs.
        levels: Method and its level, such as `("pruning", "P60")`; empty: the dense control.
        seed: The run's seed.
        state: `done` or what became of it.
        why: Why it is not done.
        score: From 0 to 1; None if it is not done.
        sizes: Bytes by name (`ideal_bytes`, `weights_bytes`, `package_bytes`, `dense_bytes`), as measured, and
            `latency_ms` where the run was timed.
        row: The row it was read from.
    """

    run_id: str
    model: str
    task: str
    levels: tuple[tuple[str, str], ...]
    seed: int | None
    state: str
    why: str
    score: float | None
    sizes: Mapping[str, float | None]
    row: Mapping[str, Any]

    @property
    def is_known(self) -> bool:
        """Whether it is known what was asked; of a run whose folder is gone nothing is."""
        return bool(self.model or self.task)

    @property
    def is_round(self) -> bool:
        """Whether it is a round of iterative pruning, which trains on from the last one: no cell of equal training."""
        return bool(self.row.get("mask_from"))

    @property
    def label(self) -> str:
        """The methods with their levels, such as `Q8+KD+P60`; `dense` for none, nothing of what is not known."""
        if not self.is_known:
            return ""
        return label_of(level for _, level in self.levels)

    @property
    def is_done(self) -> bool:
        """Whether it has a score."""
        return self.state == "done" and self.score is not None


def label_of(levels: Iterable[str]) -> str:
    """Levels joined to one name."""
    return "+".join(levels) or DENSE


def levels_json(levels: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Levels and the names of their methods, as the records of an analysis show them."""
    pairs = list(levels)
    return {"levels": [level for _, level in pairs], "methods": [name for name, _ in pairs]}


def read_cells(rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Cells from the rows of `Store.cells`, in their order.

    Two rows get the same model, task, label and seed only if nothing that was asked for differs: settings of
    a method, of the data or of the training that differ between rows become part of the label or the task. In a search
    the training is part of what is tried, so that it stands in the label.
    """
    shown = _shown_settings(rows)
    cells = []
    for row, (task, tried) in zip(rows, _task_names(rows), strict=True):
        names = sorted(row["methods"], key=lambda name: (_ORDER.get(name, len(_ORDER)), name))
        by_name = {name: _level(name, row["settings"].get(name, {}), shown[name]) for name in names}
        levels = _chained(row, by_name)
        if tried:
            levels = (*levels, (TRAINING, f"[{tried}]" if levels else f"{DENSE}[{tried}]"))
        sizes = {key: row.get(key) for key in (*SIZES, "package_bytes", "dense_bytes", "latency_ms")}
        done = row["state"] == "done"
        cells.append(
            Cell(
                run_id=row["run_id"],
                model=_model_name(row["model"]),
                task=f"({task})" if task == MEAN_TASK else task,
                levels=levels,
                seed=row["seed"],
                state=row["state"],
                why=row.get("why", ""),
                score=row["score"] if done else None,
                sizes=sizes,
                row=row,
            )
        )
    return _told_apart(cells)


def _chained(row: Mapping[str, Any], levels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Methods and levels of a cell; stages that followed one another are one level, as `P60>Q8`."""
    if row.get("rewound"):
        levels = {name: f"{level}[rewound]" for name, level in levels.items()}
    stages = row.get("stages")
    if not stages:
        return tuple(levels.items())
    if len(stages) > 1 and all(stage == stages[0] for stage in stages):  # rounds of one method
        return tuple(
            (f"{name} in {len(stages)} rounds", f"{level}[{len(stages)} rounds]") for name, level in levels.items()
        )
    names = ">".join("+".join(stage) or DENSE for stage in stages)
    return ((names, ">".join("+".join(levels[name] for name in stage) or DENSE for stage in stages)),)


def _model_name(name: str) -> str:
    is_path = name.startswith((".", "~")) or PurePath(name).is_absolute()
    return PurePath(name).name if is_path else name


def _shown_settings(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Settings of each method that differ between rows; one that a row lacks, made by an older version, differs."""
    asked: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        for name in row["methods"]:
            asked[name].append(row["settings"].get(name, {}))
    return defaultdict(list, {name: _differing(settings) for name, settings in asked.items()})


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for one in settings for key in one})
    return [key for key in keys if len({repr(one[key]) if key in one else "" for one in settings}) > 1]


def short_name(method: str) -> str:
    """Such as `Q`; a method without a short name keeps its own."""
    return _SHORT.get(method, (method, ""))[0]


def _level(name: str, settings: Mapping[str, Any], shown: Sequence[str]) -> str:
    short, main = _SHORT.get(name, (name, ""))
    value = settings.get(main)
    if value is not None:
        short += f"{100 * value:g}" if main == "sparsity" else f"{value}"
    others = ", ".join(f"{key}={settings[key]}" for key in shown if key != main and key in settings)
    return f"{short}[{others}]" if others else short


def _task_names(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """A task's name, followed by what of its rows or training differs between cells that share the name.

    Of a search's tries what differs is given on its own, the second. The learning rate is chosen for each model and
    task, so that it counts only where one model has two.
    """
    asked = [_setup(row) for row in rows]
    by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
    rates = defaultdict(set)
    for row, setup in zip(rows, asked, strict=True):
        by_task[row["task"]].append(setup)
        rates[row["task"], row["model"]].add(row.get("learning_rate"))
    several_rates = {task for (task, _), found in rates.items() if len(found) > 1}
    names = []
    for row, setup in zip(rows, asked, strict=True):
        others = by_task[row["task"]]
        parts = [f"{key}={setup[key]}" for key in setup if any(other.get(key) != setup[key] for other in others)]
        if row["task"] in several_rates:
            rate = row.get("learning_rate")
            parts.append(f"learning_rate={rate if rate is None else format(rate, '.3g')}")
        if any(study.startswith(SEARCH_NAME) for study in row.get("studies", ())):
            names.append((row["task"], ", ".join(parts)))
        else:
            names.append((f"{row['task']} ({', '.join(parts)})" if parts else row["task"], ""))
    return names


def _setup(row: Mapping[str, Any]) -> dict[str, Any]:
    setup = {**row.get("data", {}), **row.get("training", {})}
    return {key: setup[key] for key in sorted(setup) if key not in ("learning_rate", "task")}


def _told_apart(cells: list[Cell]) -> list[Cell]:
    """Where two runs answer one question, because their versions differ, their levels get a name; no other cell does.

    The name is the study's or, in one study, which of them it is. Of two dense ones the task gets it.
    """
    twins: dict[Any, list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        if cell.is_known:
            twins[cell.model, cell.task, cell.levels, cell.seed].append(i)
    made = list(cells)
    for places in twins.values():
        if len(places) == 1:
            continue
        names = [f"study {'/'.join(cells[i].row.get('studies', []))}" for i in places]
        if len(set(names)) < len(names):
            names = [f"run {number}" for number in range(1, len(names) + 1)]
        for i, name in zip(places, names, strict=True):
            cell = cells[i]
            if cell.levels:
                method, level = cell.levels[-1]
                made[i] = replace(cell, levels=(*cell.levels[:-1], (method, f"{level}[{name}]")))
            else:
                made[i] = replace(cell, task=f"{cell.task} ({name})")
    return made
