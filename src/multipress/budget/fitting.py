"""From a model and a budget to one winner: rows, the model before, the search, and the winner at its place."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import Artifact, open_artifact
from multipress.budget.limits import Budget
from multipress.budget.memo import Memo
from multipress.budget.pace import Pace, pace
from multipress.budget.rows import ReadRows, SearchRows, read_rows, write_rows
from multipress.budget.search import Search, Sizes, line_by_words, smallest_bytes
from multipress.budget.start import check_labels, classifier_folder, store_original
from multipress.budget.tries import Recipe, Result, Tries
from multipress.budget.unlabeled import label_texts
from multipress.budget.winner import Comparison, compare, winners_card
from multipress.durable import Lock, copy_files, is_free, make_folder, move_folder, write_json, write_text
from multipress.engines.job import ANYWHERE, Places
from multipress.errors import ArtifactError, RunError, SettingError, StoreError
from multipress.measure import measure_quality
from multipress.models.catalogue import Shape
from multipress.models.pretrained import identify
from multipress.records import Run
from multipress.shrink import check_family, make_named, shrink_encoder
from multipress.spec import DataSpec, TrainingSpec

__all__ = ["Asked", "Compressed", "fit"]

LEARNING_RATES = (1e-4, 3e-4, 1e-3)  # for an encoder without a head; what a classifier is trained on with is in between
CLASSIFIER_RATE = 2e-4
SHRINK_STEPS = 200


@dataclass(frozen=True)
class Asked:
    """What is to be compressed, on which rows.

    Args:
        model: Short name, folder or hub id of a classifier or an encoder.
        data: The task, or files of train and validation rows.
        test: File of rows to report on; empty: half of the validation rows.
        max_length: Tokens kept of a row.
        epochs: Passes over the rows of a try; 0: as many as the time allows.
        unlabeled: File of texts without labels, in place of `data`'s files; the model itself labels them.

    Raises:
        SettingError: there are texts without labels and others with.
    """

    model: str
    data: DataSpec
    test: str = ""
    max_length: int = TrainingSpec.max_length
    epochs: int = 0
    unlabeled: str = ""

    def __post_init__(self) -> None:
        data = self.data
        if self.unlabeled and (data.task or data.train or data.dev or self.test):
            raise SettingError(
                "--unlabeled stands alone: give it, or rows with labels by --task or --train, --dev and --test."
            )


@dataclass(frozen=True)
class Compressed:
    """The winner, and why it is.

    Args:
        artifact: At its place.
        comparison: Before, after and the rival, on rows that no choice has seen.
        why: One sentence.
        recipe: How it was made, in words.
        store: The folder of all tries.
        notes: What a user should know of the rows.
        meets: Whether the winner keeps to the budget's score on the rows to report on too.
        guesses: Whether it is right no more often than the most common label is.
    """

    artifact: Artifact
    comparison: Comparison
    why: str
    recipe: str
    store: Path
    notes: tuple[str, ...]
    meets: bool
    guesses: bool


def fit(
    asked: Asked,
    budget: Budget,
    out: Path,
    *,
    places: Places = ANYWHERE,
    on_note: Callable[[str], None] = lambda note: None,
    on_end: Callable[[Run, int, int], None] = lambda run, ended, total: None,
) -> Compressed:
    """Search for the model that keeps to a budget and put it at `out`.

    The best one so far lies at `out`, whole. All tries are runs in a store in `<out>.search`: the same
    call goes on where it was stopped.

    Args:
        asked: What is to be compressed.
        budget: The limits.
        out: Folder to make; must not exist yet or hold an earlier winner of this search.
        places: Where models and data are found.
        on_note: Called with what happens, in words.
        on_end: Called when a run has ended, with how many of a round have ended and how many there are.

    Raises:
        InputError: model, rows or limits cannot be used, or it is plain that the limits cannot be met.
        RunError: no try kept to the budget; the message says what came nearest.
    """
    fitting = _Fitting(asked, budget, out, places, on_note, on_end)
    try:
        return fitting.run()
    except OSError as error:
        raise StoreError(f"{out} or {fitting.folder} cannot be written to or read: {error}.") from None


class _Fitting:
    """One call of `fit`."""

    def __init__(
        self,
        asked: Asked,
        budget: Budget,
        out: Path,
        places: Places,
        on_note: Callable[[str], None],
        on_end: Callable[[Run, int, int], None],
    ) -> None:
        self._given = asked
        self._asked = asked  # with rows that the model has labelled, where it was given texts
        self._budget = budget
        self._out = out
        self._places = places
        self._note = on_note
        self._on_end = on_end
        self._began = time.monotonic()
        self._lines: dict[str, dict[str, Sizes]] = {}
        self.folder = out.parent / f"{out.name}.search"
        self._answers = Memo(self.folder / "answers.json")

    def run(self) -> Compressed:
        make_named(self._asked.model, on_note=self._note)
        read = None if self._asked.unlabeled else self._read()  # before anything is written
        make_folder(self.folder)
        lock = Lock(self.folder / "lock")
        if not lock.acquire():
            raise StoreError(f"Another search works in {self.folder}. Wait for it, or name another place with -o.")
        try:
            if read is None:
                self._asked = label_texts(self._asked, self.folder, self._places, self._note)
                read = self._read()
            model, labels = classifier_folder(self._asked.model, read.task, self.folder, self._places)
            identify(model, self._places.models_dir).check_length(self._asked.max_length)
            return self._fit(model, write_rows(read, self._asked.data, labels, self.folder))
        finally:
            lock.release()

    def _read(self) -> ReadRows:
        read = read_rows(self._asked.data, self._asked.test, self._places)
        for note in read.notes:
            self._note(note)
        return read

    def _fit(self, model: str, rows: SearchRows) -> Compressed:
        tries = self._tries(rows)
        self._check_place(tries)
        base = Recipe(model, rate=0, learning_rate=CLASSIFIER_RATE, epochs=self._asked.epochs or 1)
        chosen = self._pace(tries, base, rows)
        rows, base = chosen.of(rows), replace(base, epochs=chosen.epochs)
        tries = self._tries(rows, chosen.batch_size)
        small = self._small_enough(tries, base)  # what cannot be is said before anything is trained
        before, score, base = self._before(tries, base, rows)
        self._note(f"The model before: score {score:.4f} on {len(rows.select):,} rows to select by.")
        least = self._budget.least_score(score)
        base = self._fast_enough(tries, replace(base, model=small, rate=None), before)
        limits = [self._budget.max_mb, self._budget.max_ms, least]
        earlier = tries.results_of(self._answers.get(["earlier", limits, asdict(rows.data)], tries.known))
        search = Search(tries, self._budget, base, least, self._sizes(tries, base), earlier)
        search.run(self._has_time, self._publish_and_say, self._standing(tries))
        if search.best is None:
            raise RunError(self._nearest(tries, least))
        self._publish(search.best)
        comparison = compare(before, self._out, rows.task, rows.report)
        name = Path(self._given.model).name
        card = winners_card(open_artifact(self._out), comparison, self._command(), name)
        write_text(self._out / "README.md", card)
        return self._told(search.best, comparison, tries, rows)

    def _check_place(self, tries: Tries) -> None:
        """Raise `ArtifactError` unless `out` is free or holds a winner of this search."""
        if is_free(self._out):
            return
        try:
            known = tries.is_there(str(open_artifact(self._out).facts.get("run_id", "")))
        except ArtifactError:
            known = False
        if not known:
            raise ArtifactError(f"{self._out} exists already and is no result of this search. Name another place.")

    def _standing(self, tries: Tries) -> Result | None:
        """The winner of an earlier search that lies at `out`."""
        path = self.folder / "winner.json"
        if is_free(self._out) or not path.is_file():
            return None
        stored = json.loads(path.read_text(encoding="utf-8"))
        if open_artifact(self._out).facts["run_id"] != stored["run_id"]:
            return None
        return next(iter(tries.results_of([stored["run_id"]])), None)

    def _tries(self, rows: SearchRows, batch_size: int = TrainingSpec.batch_size) -> Tries:
        training = TrainingSpec(max_length=self._asked.max_length, batch_size=batch_size)
        is_timed = self._budget.max_ms is not None
        return Tries(self.folder / "runs", rows, training, self._places, self._on_end, is_timed)

    def _pace(self, tries: Tries, base: Recipe, rows: SearchRows) -> Pace:
        """Passes over how many rows; the same for the same time, whatever else the computer does."""
        question = [base.model, asdict(rows.data), self._asked.max_length, self._asked.epochs, self._budget.minutes]

        def answer() -> dict[str, int]:
            one = tries.seconds(replace(base, epochs=1))
            chosen = pace(one, rows.num_train, 60 * self._budget.minutes, self._asked.epochs)
            self._note(f"An epoch takes about {one:.0f} s on one core; tries have {chosen.text(rows.num_train)}.")
            return asdict(chosen)

        return Pace(**self._answers.get(question, answer))

    def _before(self, tries: Tries, base: Recipe, rows: SearchRows) -> tuple[Path, float, Recipe]:
        """The model before as an artifact, its score on the rows to select by, and the base of all tries."""
        place = store_original(base.model, rows.task, self._asked.max_length, self.folder, self._places)
        if place is None:
            self._note(f"{self._asked.model} has no head for this task; it is fine-tuned first, without compression.")
            found = tries.run([replace(base, learning_rate=rate) for rate in LEARNING_RATES])
            best = max(found, key=lambda result: result.score)
            place = best.artifact
            base = replace(base, learning_rate=best.recipe.learning_rate)
        quality, logits = measure_quality(open_artifact(place), rows.select, rows.task)
        if rows.task.target == "classes":
            check_labels(self._asked.model, rows.task, logits.argmax(axis=1), rows.select.labels)
        tries.teacher = str(place)
        return place, next(row.value for row in quality if row.name == "score"), base

    def _has_time(self, seconds: float) -> bool:
        return time.monotonic() - self._began + seconds < 60 * self._budget.minutes

    def _fast_enough(self, tries: Tries, base: Recipe, before: Path) -> Recipe:
        """The base with fewer layers, where the model is slower than the limit."""
        limit = self._budget.max_ms
        if limit is None:
            return base
        latency = tries.latency(before)
        layers = self._num_layers(base.model)
        self._note(f"The model before takes {latency:.2f} ms for one text; the limit is {limit:g} ms.")
        if latency <= limit:
            return base
        fewer = math.floor(layers * limit / latency)
        if fewer < 1:
            raise SettingError(
                f"One of {layers} layers alone takes about {latency / layers:.2f} ms, above the limit of {limit:g} ms. "
                "Take a smaller model."
            )
        return replace(base, model=self._with_layers(base.model, fewer))

    def _small_enough(self, tries: Tries, base: Recipe) -> str:
        """The model, or one with half of its layers, or half of those: the first that can be made small enough.

        Raises:
            SettingError: none can.
        """
        if self._budget.max_mb is None:
            return base.model
        smallest = smallest_bytes(self._sizes(tries, base))
        layers = self._num_layers(base.model)
        while smallest > self._budget.max_bytes:
            if layers == 1:
                raise SettingError(
                    f"{self._asked.model} cannot be made as small as {self._budget.max_mb:g} MB: at its smallest, with "
                    f"one layer, it has {math.ceil(smallest / 1e4) / 100:.2f} MB. Take that limit or a smaller model."
                )
            layers //= 2
            cut = self._with_layers(base.model, layers, 0)
            smallest = smallest_bytes(self._sizes(tries, replace(base, model=cut)))
        return base.model if layers == self._num_layers(base.model) else self._with_layers(base.model, layers)

    def _sizes(self, tries: Tries, base: Recipe) -> dict[str, Sizes]:
        """The sizes of a model, looked at once."""
        if base.model not in self._lines:
            self._lines[base.model] = line_by_words(tries, base)
        return self._lines[base.model]

    def _num_layers(self, model: str) -> int:
        config: Any = identify(model, self._places.models_dir).config
        return int(config.num_hidden_layers)

    def _with_layers(self, model: str, layers: int, steps: int = SHRINK_STEPS) -> str:
        """An encoder with fewer layers, made once; without recovery steps it is only to be weighed."""
        checked = identify(model, self._places.models_dir)
        check_family(checked.config, model)
        config: Any = checked.config
        place = self.folder / f"layers-{layers}-{steps}-{checked.sha256[:12]}"
        if not place.is_dir():
            if steps:
                self._note(f"An encoder with {layers} of {config.num_hidden_layers} layers is made.")
            shape = Shape(layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
            shrink_encoder(model, shape, place, steps=steps, models_dir=self._places.models_dir)
        return str(place)

    def _publish_and_say(self, result: Result) -> None:
        self._publish(result)
        self._note(
            f"The best so far: {result.recipe.text()}: score {result.score:.4f}, {result.package_bytes / 1e6:.2f} MB, "
            f"at {self._out}"
        )

    def _publish(self, result: Result) -> None:
        """Put an artifact at `out`, in place of an earlier winner; between two renames nothing is there."""
        if not is_free(self._out) and open_artifact(self._out).facts["run_id"] == result.run_id:
            return
        old, made = self.folder / "replaced", self.folder / "next"
        for place in (old, made):
            shutil.rmtree(place, ignore_errors=True)
        copy_files(result.artifact, made)
        write_json(self.folder / "winner.json", {"run_id": result.run_id})
        if not is_free(self._out):
            move_folder(self._out, old)
        move_folder(made, self._out)

    def _command(self) -> str:
        limits = {"max-mb": self._budget.max_mb, "max-ms": self._budget.max_ms}
        limits |= {"min-score": self._budget.min_score, "max-drop": self._budget.max_drop}
        given = " ".join(f"--{name} {value:g}" for name, value in limits.items() if value is not None)
        data, unlabeled = self._given.data, self._given.unlabeled
        rows = f"--task {data.task}" if data.task else f"--train {Path(data.train).name} --dev {Path(data.dev).name}"
        rows = f"--unlabeled {Path(unlabeled).name}" if unlabeled else rows
        return f"multipress compress {Path(self._given.model).name} {rows} {given} -o OUT"

    def _nearest(self, tries: Tries, least: float | None) -> str:
        """What to say where nothing keeps to the budget."""
        results = [result for result in tries.results if result.recipe.rate != 0]
        if not results:
            return "No try ended well. See the runs of the search."
        wanted = "" if least is None else f" with a score of {least:.4f} or more"
        nearest = max(results, key=lambda result: result.score)
        fast = "" if nearest.latency_ms is None else f", {nearest.latency_ms:.2f} ms"
        return (
            f"No try keeps to the budget{wanted}. The nearest: {nearest.recipe.text()}: score {nearest.score:.4f}, "
            f"{nearest.package_bytes / 1e6:.2f} MB{fast}, in {nearest.artifact}. Allow more MB, a larger drop, or more "
            "time; the same command with other limits goes on from these tries."
        )

    def _told(self, best: Result, comparison: Comparison, tries: Tries, rows: SearchRows) -> Compressed:
        before, _, after = comparison.rows
        tried = sum(result.recipe.rate != 0 for result in tries.results)
        if self._budget.least_score(0.0) is not None:
            aim = f"the smallest of {tried} tries whose score on {len(rows.select):,} other rows was high enough"
        else:
            aim = f"the best of {tried} tries within the limits, by {len(rows.select):,} other rows"
        why = f"Chosen because it is {aim}: {best.recipe.text()}."
        least = self._budget.least_score(before.score)
        meets = least is None or after.score >= least
        labels = rows.report.labels
        is_accuracy = rows.task.score == "accuracy"
        guesses = is_accuracy and after.score <= np.bincount(labels).max() / len(labels)
        return Compressed(
            open_artifact(self._out),
            comparison,
            why,
            best.recipe.text(),
            self.folder / "runs",
            rows.notes,
            meets,
            bool(guesses),
        )
