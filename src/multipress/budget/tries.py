"""Tries: recipes trained side by side as runs of one store, and what came of them."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import open_artifact
from multipress.budget.memo import Memo
from multipress.budget.rows import SearchRows
from multipress.budget.sizes import line_of
from multipress.engines.execute import read_measurements
from multipress.engines.job import Job, Places
from multipress.engines.local import LocalEngine, default_workers
from multipress.engines.schedule import is_to_do, run_what_is_left
from multipress.errors import RunError
from multipress.estimate import predicted_seconds
from multipress.manifest import FORMAT_VERSION
from multipress.measure import measure_speed, read_error
from multipress.methods import get_method
from multipress.methods.distillation import Distillation
from multipress.models.pretrained import identify
from multipress.plain_text import duration, megabytes
from multipress.plan import Plan
from multipress.records import Run
from multipress.reproducibility import computer, file_sha256, library_versions
from multipress.size_ahead import SizeAhead, size_before_training
from multipress.spec import SEARCH_NAME, MethodSpec, RunSpec, StudySpec, TrainingSpec
from multipress.speed_ahead import encoder_milliseconds
from multipress.store import Store

__all__ = ["Recipe", "Result", "Tries", "cut_folder"]

TIMED_LENGTH = 128
_CUT = re.compile(r"layers-([0-9]+)-[0-9]+-[0-9a-f]{12}")
_RUN_ID = re.compile(r"[0-9a-f]{12}")


def cut_folder(layers: int, steps: int, sha256: str) -> str:
    """Name of the folder of a model with so many layers, after so many steps of recovery, made from that model."""
    return f"layers-{layers}-{steps}-{sha256[:12]}"


@dataclass(frozen=True)
class Recipe:
    """What a try may vary.

    Args:
        model: The model that is trained.
        rate: Mean bits of a weight in an entropy coder; None: `bits`, coded as they are; 0: not compressed at all.
        words: `all`, `general` (the rows' and a general text's) or `rows`.
        learning_rate: Highest learning rate.
        epochs: Passes over the rows.
        temperature: Softens what is learned from the model before (`distillation`).
        heads: Share of the attention heads to take out (`structured`).
        neurons: The same of the feed-forward neurons.
        bits: Bits of a weight, where there is no rate.
        sparsity: Share of the weights that are pruned.
        static: Whether the scales of activations are fixed in the training, with which integers are computed faster.
    """

    model: str
    rate: float | None = None
    words: str = "all"
    learning_rate: float = 1e-4
    epochs: int = 3
    temperature: float = Distillation.temperature
    heads: float = 0.0
    neurons: float = 0.0
    bits: int = 8
    sparsity: float = 0.0
    static: bool = False

    @classmethod
    def of(cls, spec: RunSpec) -> Recipe:
        """The recipe of a run of a search."""
        settings = {method.name: method.settings for method in spec.methods}
        coded = settings.get("quantization", {"rate": 0.0, "bits": cls.bits})
        words = "all"
        if "vocabulary" in settings:
            words = "general" if settings["vocabulary"]["general"] else "rows"
        softened = settings.get("distillation", {}).get("temperature", cls.temperature)
        shares = settings.get("structured", {"heads": 0.0, "neurons": 0.0})
        training = spec.training
        own = (spec.model, coded["rate"], words, training.learning_rate, training.epochs, softened)
        zeros = settings.get("pruning", {"sparsity": 0.0})["sparsity"]
        fixed = coded.get("activation_scale") == "static"
        own_shares = {"heads": shares["heads"], "neurons": shares["neurons"]}
        return cls(*own, **own_shares, bits=coded["bits"], sparsity=zeros, static=fixed)

    def text(self) -> str:
        """In words."""
        if self.rate == 0:
            return f"dense, learning rate {self.learning_rate:g}, {self.epochs} epochs"
        parts = f"{self.bits} bits" if self.rate is None else f"{self.rate:.2f} bits a weight"
        parts += f", {self.sparsity:.0%} of the weights zero" if self.sparsity else ""
        parts += ", activations with fixed scales" if self.static else ""
        if cut := _CUT.fullmatch(Path(self.model).name):
            parts += f", {cut[1]} layer{'s'[: int(cut[1]) - 1]}"
        words = {"all": "", "general": ", unused words dropped", "rows": ", only the rows' words"}[self.words]
        soft = "" if self.temperature == Distillation.temperature else f", temperature {self.temperature:g}"
        epochs = f"{self.epochs} epoch{'s'[: self.epochs - 1]}"
        if self.heads or self.neurons:
            words += f", without {self.heads:.0%} of the heads and {self.neurons:.0%} of the neurons"
        return f"{parts}{words}, learning rate {self.learning_rate:g}, {epochs}{soft}"

    def methods(self, teacher: str) -> dict[str, dict[str, Any]]:
        """The methods of a study with their settings; without a teacher, those that need none."""
        if self.rate == 0:
            return {}
        settings: dict[str, dict[str, Any]] = {"quantization": {"bits": self.bits}}
        if teacher:
            settings["distillation"] = {"teacher": teacher, "temperature": self.temperature}
        if self.rate is not None:
            settings["quantization"] = {"rate": self.rate, "steps": "tensor"}
        if self.static:
            settings["quantization"] |= {"activation_bits": 8, "activation_scale": "static"}
        if self.sparsity:
            settings["pruning"] = {"sparsity": self.sparsity}
        if self.heads or self.neurons:
            settings["structured"] = {"heads": self.heads, "neurons": self.neurons}
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
        latency_ms: Median for one text on this computer, computed in integers; None where it was not asked for.
        error: Standard error of the score less that of the model before, or of the score itself where that is limited.
    """

    recipe: Recipe
    run_id: str
    artifact: Path
    score: float
    package_bytes: int
    latency_ms: float | None = None
    error: float = 0.0

    def text(self) -> str:
        """In words."""
        fast = "" if self.latency_ms is None else f", {self.latency_ms:.2f} ms"
        return f"{self.recipe.text()}: score {self.score:.4f}, {megabytes(self.package_bytes)}{fast}"


class Tries:
    """Runs tries in a store and keeps their results; what is done already is not run again. Close it in the end.

    Args:
        folder: The store.
        rows: Rows to train on and to select by.
        training: Settings of all trainings but learning rate and epochs.
        places: Where models and data are found.
        on_begin: Called with what is tried now, in words.
        on_note: Called with what came of each try, in words.
        is_timed: Whether latencies are measured.
        model: The model that is compressed.

    Attributes:
        teacher: Artifact of the model before, which tries learn from; empty before there is one.
        reference: Its logits (N, C) on the rows to select by, with which those of tries are compared; None: with none.
        limits_score: Whether there is a limit of score, so that it matters how sure scores are.
        is_over: Whether tries that work are to be ended; the same search goes on with them another time.
        was_stopped: Whether those of the last round were.
        workers: How many tries run side by side.
    """

    def __init__(  # noqa: PLR0913 - where, on what and how all tries of a search run
        self,
        folder: Path,
        rows: SearchRows,
        training: TrainingSpec,
        places: Places,
        on_begin: Callable[[str], None],
        on_note: Callable[[str], None],
        is_timed: bool,
        model: str,
    ) -> None:
        self.store = Store(folder)
        self.results: list[Result] = []
        self.teacher = ""
        self.reference: np.ndarray | None = None
        self.limits_score = False
        self.is_over: Callable[[], bool] = lambda: False
        self.was_stopped = False
        self._results: dict[str, Result] = {}
        self.workers = default_workers()
        self._slowness: list[float] = []  # of rounds, the time they took in that which was predicted
        self._sizes, self._latencies = (Memo(folder.parent / f"{name}.json") for name in ("sizes", "latencies"))
        self._rows = rows
        self._training = training
        self._places = places
        self._on_begin, self._on_note = on_begin, on_note
        self._is_timed = is_timed
        self.store.check_writable()
        self._engine = LocalEngine(self.store, places, self.workers)  # its workers stay from round to round
        self._seconds: dict[Recipe, float] = {}
        files = [file_sha256(Path(file)) for file in (rows.data.train, rows.data.dev)]
        self.facts = [identify(model, places.models_dir).sha256, *files, asdict(rows.data), asdict(training)]
        # Only tries on the same rows, by the same training, of the same model can be compared.
        self._study = f"{SEARCH_NAME}{hashlib.sha256(json.dumps(self.facts).encode()).hexdigest()[:8]}"
        self._cells: list[str] = list(self.store.studies().get(self._study, {}).get("cells", []))

    def close(self) -> None:
        """End the workers."""
        self._engine.close()

    def _job(self, recipe: Recipe) -> tuple[Plan, Job]:
        """The last run of a try, and the plan that knows what it needs."""
        methods = recipe.methods(self.teacher)
        study = StudySpec(
            self._study,
            (recipe.model,),
            (self._rows.data,),
            training=replace(self._training, epochs=recipe.epochs),
            learning_rates=(recipe.learning_rate,),
            subsets=(tuple(methods),),
            methods=methods,
        )
        plan = Plan(study, self._places)
        return plan, plan.cells({(recipe.model, self._rows.data): recipe.learning_rate})[-1]

    def seconds(self, *recipes: Recipe) -> float:
        """About how long tries side by side take, by what was predicted and what became of earlier predictions.

        What is done already takes no time.
        """
        left = [recipe for recipe in recipes if self.store.done(self._job(recipe)[1].run_id) is None]
        return self.seconds_of_new(left) if left else 0.0

    def seconds_of_new(self, recipes: Sequence[Recipe]) -> float:
        """The same of recipes that are not done, or as if they were not."""
        return (statistics.median(self._slowness) if self._slowness else 1.0) * self._predicted(recipes)

    def _predicted(self, recipes: Sequence[Recipe]) -> float:
        """Of the slowest of them, or their share of each worker."""
        times = [self._seconds_of(recipe) for recipe in recipes]
        return max(*times, sum(times) / self.workers) if len(times) > 1 else times[0]

    def _seconds_of(self, recipe: Recipe) -> float:
        alike = replace(recipe, rate=recipe.rate and 1.0, learning_rate=1.0, temperature=1.0)  # take as long
        alike = replace(alike, bits=8, sparsity=0.5 if recipe.sparsity else 0.0)
        if alike not in self._seconds:
            plan, job = self._job(recipe)
            self._seconds[alike] = predicted_seconds(plan, job.spec)
        return self._seconds[alike]

    def size(self, recipe: Recipe) -> SizeAhead:
        """The size that a try will have, before it is trained; looked at once, so that a search repeats."""
        methods = tuple(MethodSpec(name, settings) for name, settings in recipe.methods(teacher="").items())
        spec = RunSpec("train", recipe.model, self._rows.data, self._training, methods)
        model = identify(recipe.model, self._places.models_dir).sha256
        versions = [FORMAT_VERSION, *(get_method(method.name).version for method in spec.methods)]
        question = [self.facts, model, [asdict(method) for method in spec.methods], versions]
        answer = self._sizes.get(question, lambda: asdict(size_before_training(spec, self._places)))
        return SizeAhead(**answer)

    def _with_size(self, recipe: Recipe) -> str:
        """A recipe in words, with the size of the package that is to come."""
        if recipe.rate == 0:
            return recipe.text()
        if recipe.rate is None:
            size = float(self.size(recipe).package_bytes)
        else:
            size = line_of(self, recipe).package_bytes(recipe.rate)
        return f"{recipe.text()}, about {megabytes(size)}"

    def known(self) -> list[str]:
        """Ids of all done tries of this model on these rows, by this search or earlier ones with other limits."""
        return [run_id for run_id in self._cells if self.store.done(run_id) is not None]

    def results_of(self, run_ids: Sequence[str]) -> list[Result]:
        """What came of runs of this search or of earlier ones; dense ones are none of its tries."""
        recipes = {run_id: Recipe.of(RunSpec.from_json(self.store.run(run_id).spec)) for run_id in run_ids}
        found = [self.result(recipe, run_id) for run_id, recipe in recipes.items() if recipe.rate != 0]
        return [result for result in found if result is not None]

    def is_there(self, run_id: str) -> bool:
        """Whether a run of this store is done."""
        return bool(_RUN_ID.fullmatch(run_id)) and self.store.done(run_id) is not None

    def run(self, recipes: Sequence[Recipe], on_result: Callable[[Result], None] = lambda result: None) -> list[Result]:
        """Run tries side by side; those that fail give no result.

        Args:
            recipes: What to try.
            on_result: Called with the result of each as soon as it is done; not where latencies are measured, which is
                done when no other try runs.

        Raises:
            RunError: none of them ended well.
        """
        made = [(recipe, *self._job(recipe)) for recipe in dict.fromkeys(recipes)]
        jobs = {job.run_id: job for _, plan, last in made for job in plan.with_needs([last])}
        self._cells = list(dict.fromkeys([*self._cells, *(job.run_id for _, _, job in made)]))
        self.store.save_study(self._study, {"cells": self._cells, "spec": asdict(made[0][1].study)})
        by_run = {job.run_id: recipe for recipe, _, job in made}

        def end(run: Run, ended: int, total: int) -> None:
            recipe = by_run.get(run.run_id)
            if recipe is None:
                return  # the rows are labelled by the model before
            if run.state != "done":
                self._on_note(f"{recipe.text()}: {run.state}: {run.why}")
            elif not self._is_timed and (result := self.result(recipe, run.run_id)) is not None:
                self._on_note(result.text())
                on_result(result)

        for job in jobs.values():
            self.store.register(job.run_id, job.record)
        new = [recipe for run_id, recipe in by_run.items() if is_to_do(self.store.run(run_id))]

        began, self.was_stopped = time.monotonic(), False
        self._say(new)
        run_what_is_left(list(jobs.values()), self.store, self._engine, on_end=end, is_over=self._is_stopped)
        if new and len(new) == sum(self.store.done(run_id) is not None for run_id in by_run):
            self._slowness.append((time.monotonic() - began) / self._predicted(new))
        found = [result for recipe, _, job in made if (result := self.result(recipe, job.run_id)) is not None]
        if not found and not self.results and not self.was_stopped:
            whys = [run.why for job in jobs.values() if (run := self.store.run(job.run_id)).state != "done"]
            raise RunError(f"No try ended well; the first: {whys[0]}")
        if self._is_timed:
            for result in found:
                self._on_note(result.text())
        self.results += [result for result in found if result not in self.results]
        return found

    def _is_stopped(self) -> bool:
        """Whether the tries that work are to be ended, from the first yes on."""
        self.was_stopped = self.was_stopped or self.is_over()
        return self.was_stopped

    def _say(self, new: Sequence[Recipe]) -> None:
        """Tell what is tried now."""
        if new:
            more = f"; and {len(new) - 2} more" if len(new) > 2 else ""
            named = "; ".join(self._with_size(recipe) for recipe in new[:2])
            self._on_begin(f"Trying, for about {duration(self.seconds(*new))}: {named}{more}")

    def result(self, recipe: Recipe, run_id: str) -> Result | None:
        """What came of a try; None where it is not done."""
        done = self.store.done(run_id)
        if done is None:
            return None
        if run_id in self._results:
            return self._results[run_id]
        values = {row.name: row.value for row in read_measurements(done)}
        latency = self.latency(done / "artifact") if self._is_timed else None
        error = read_error(done, self.reference) if self.limits_score else 0.0
        size = int(values["package_bytes"])
        found = Result(recipe, run_id, done / "artifact", float(values["score"]), size, latency, error)
        self._results[run_id] = found
        return found

    @property
    def timed_length(self) -> int:
        """Tokens of the text that latencies are measured with."""
        return min(TIMED_LENGTH, self._training.max_length)

    def latency(self, artifact: Path) -> float:
        """Median milliseconds for one text of `timed_length` tokens by integers; measured once: a search repeats."""
        opened = open_artifact(artifact)

        sha256 = opened.manifest["files"]["model.safetensors"]["sha256"]
        return self._timed(sha256, "int8", lambda: self.latency_now(artifact))

    def latency_now(self, artifact: Path) -> float:
        """The same, measured anew."""
        rows = measure_speed(open_artifact(artifact), [(1, self.timed_length)], precision="int8")
        return next(float(row.value) for row in rows if row.name == "latency_p50_ms")

    def encoder_latency(self, model: str) -> float:
        """The same of a whole model in 8 bits, before there is one."""
        checked = identify(model, self._places.models_dir)
        timed = partial(encoder_milliseconds, checked.config, self.timed_length)
        return self._timed(checked.sha256, "int8 static", timed)

    def _timed(self, sha256: str, precision: str, timed: Callable[[], float]) -> float:
        here = [computer()["cpu"], library_versions("onnxruntime")]
        return float(self._latencies.get([sha256, self.timed_length, precision, here], timed))
