"""Tries: recipes trained side by side as runs of one store, and what came of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from multipress.artifact import open_artifact
from multipress.budget.rows import SearchRows
from multipress.durable import write_json
from multipress.engines.execute import read_measurements
from multipress.engines.job import Job, Places
from multipress.engines.local import LocalEngine, default_workers
from multipress.engines.schedule import run_what_is_left
from multipress.errors import RunError
from multipress.estimate import predicted_seconds
from multipress.measure import measure_speed
from multipress.plan import Plan
from multipress.records import Run
from multipress.size_ahead import SizeAhead, size_before_training
from multipress.spec import MethodSpec, RunSpec, StudySpec, TrainingSpec
from multipress.store import Store

__all__ = ["Recipe", "Result", "Tries"]

STUDY = "search"
TIMED_LENGTH = 128
_RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Recipe:
    """What a try may vary.

    Args:
        model: The model that is trained.
        rate: Mean bits of a weight in an entropy coder; None: 8 bits, coded as they are; 0: not compressed at all.
        words: `all`, `general` (the rows' and a general text's) or `rows`.
        learning_rate: Highest learning rate.
        epochs: Passes over the rows.
    """

    model: str
    rate: float | None = None
    words: str = "all"
    learning_rate: float = 1e-4
    epochs: int = 3

    def text(self) -> str:
        """In words."""
        if self.rate == 0:
            return f"dense, learning rate {self.learning_rate:g}, {self.epochs} epochs"
        parts = "8 bits" if self.rate is None else f"{self.rate:.2f} bits a weight"
        words = {"all": "", "general": ", unused words dropped", "rows": ", only the rows' words"}[self.words]
        return f"{parts}{words}, learning rate {self.learning_rate:g}, {self.epochs} epochs"

    def methods(self, teacher: str) -> dict[str, dict[str, Any]]:
        """The methods of a study with their settings."""
        if self.rate == 0:
            return {}
        settings: dict[str, dict[str, Any]] = {"quantization": {}, "distillation": {"teacher": teacher}}
        if self.rate is not None:
            settings["quantization"] = {"rate": self.rate, "steps": "tensor"}
        if self.words != "all":
            settings["vocabulary"] = {"general": self.words == "general"}
        return settings


@dataclass(frozen=True)
class Result:
    """What came of a try.

    Args:
        recipe: What was tried.
        run_id: Its run.
        artifact: The artifact's folder.
        score: On the rows to select by.
        package_bytes: Of the whole package.
        latency_ms: Median for one text on this computer; None where it was not asked for.
    """

    recipe: Recipe
    run_id: str
    artifact: Path
    score: float
    package_bytes: int
    latency_ms: float | None = None


class Tries:
    """Runs tries in a store and keeps their results; what is done already is not run again.

    Args:
        folder: The store.
        rows: Rows to train on and to select by.
        training: Settings of all trainings but learning rate and epochs.
        places: Where models and data are found.
        on_end: Called when a run has ended, with how many of a round have ended and how many there are.
        is_timed: Whether latencies are measured.
    """

    def __init__(
        self,
        folder: Path,
        rows: SearchRows,
        training: TrainingSpec,
        places: Places,
        on_end: Callable[[Run, int, int], None],
        is_timed: bool,
    ) -> None:
        self.store = Store(folder)
        self.results: list[Result] = []
        self.teacher = ""
        self._rows = rows
        self._training = training
        self._places = places
        self._on_end = on_end
        self._is_timed = is_timed
        self.store.check_writable()
        self._cells: list[str] = list(self.store.studies().get(STUDY, {}).get("cells", []))

    def _job(self, recipe: Recipe) -> tuple[Plan, Job]:
        """The last run of a try, and the plan that knows what it needs."""
        methods = recipe.methods(self.teacher)
        study = StudySpec(
            STUDY,
            (recipe.model,),
            (self._rows.data,),
            training=replace(self._training, epochs=recipe.epochs),
            learning_rates=(recipe.learning_rate,),
            subsets=(tuple(methods),),
            methods=methods,
        )
        plan = Plan(study, self._places)
        return plan, plan.cells({(recipe.model, self._rows.data): recipe.learning_rate})[-1]

    def seconds(self, recipe: Recipe) -> float:
        """About how long a try takes on one core."""
        plan, job = self._job(recipe)
        return predicted_seconds(plan, job.spec)

    def size(self, recipe: Recipe) -> SizeAhead:
        """The size that a try will have, before it is trained."""
        methods = recipe.methods("").items()
        spec = RunSpec(
            "train",
            recipe.model,
            self._rows.data,
            self._training,
            tuple(MethodSpec(name, settings) for name, settings in methods if name != "distillation"),
        )
        return size_before_training(spec, self._places)

    def is_there(self, run_id: str) -> bool:
        """Whether a run of this store is done."""
        return bool(_RUN_ID.fullmatch(run_id)) and self.store.done(run_id) is not None

    def run(self, recipes: Sequence[Recipe]) -> list[Result]:
        """Run tries side by side; those that fail give no result.

        Raises:
            RunError: none of them ended well.
        """
        made = [(recipe, *self._job(recipe)) for recipe in dict.fromkeys(recipes)]
        jobs = {job.run_id: job for _, plan, last in made for job in plan.with_needs([last])}
        self._cells = list(dict.fromkeys([*self._cells, *(job.run_id for _, _, job in made)]))
        self.store.save_study(STUDY, {"cells": self._cells, "spec": asdict(made[0][1].study)})
        with closing(LocalEngine(self.store, self._places, min(default_workers(), len(jobs)))) as engine:
            run_what_is_left(list(jobs.values()), self.store, engine, on_end=self._on_end)
        found = [result for recipe, _, job in made if (result := self.result(recipe, job.run_id)) is not None]
        if not found and not self.results:
            whys = [run.why for job in jobs.values() if (run := self.store.run(job.run_id)).state != "done"]
            raise RunError(f"No try ended well; the first: {whys[0]}")
        self.results += [result for result in found if result not in self.results]
        return found

    def result(self, recipe: Recipe, run_id: str) -> Result | None:
        """What came of a try; None where it is not done."""
        done = self.store.done(run_id)
        if done is None:
            return None
        values = {row.name: row.value for row in read_measurements(done)}
        latency = self.latency(done / "artifact") if self._is_timed else None
        return Result(recipe, run_id, done / "artifact", float(values["score"]), int(values["package_bytes"]), latency)

    def latency(self, artifact: Path) -> float:
        """Median milliseconds for one text of up to `TIMED_LENGTH` tokens; measured once, so that a search repeats."""
        opened = open_artifact(artifact)
        path = self.store.folder.parent / "latencies.json"
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        key = str(opened.manifest["files"]["model.safetensors"]["sha256"])
        if key not in known:
            length = min(TIMED_LENGTH, int(opened.facts["max_length"]))
            rows = measure_speed(opened, [(1, length)])
            known[key] = next(row.value for row in rows if row.name == "latency_p50_ms")
            write_json(path, known)
        return known[key]
