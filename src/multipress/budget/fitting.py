"""From a model and a budget to one winner: rows, the model before, the search, and the winner at its place."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from multipress.artifact import Artifact, open_artifact
from multipress.budget.earlier import Earlier, as_results, best_learning_rate, read_earlier
from multipress.budget.limits import Budget
from multipress.budget.memo import Memo
from multipress.budget.pace import Pace, pace
from multipress.budget.rows import ReadRows, SearchRows, read_rows, write_rows
from multipress.budget.search import Search
from multipress.budget.shapes import Shapes
from multipress.budget.start import check_labels, classifier_folder, store_original
from multipress.budget.tries import Recipe, Result, Tries
from multipress.budget.unlabeled import label_texts, texts_to_label
from multipress.budget.winner import Comparison, compare, winners_card
from multipress.durable import Lock, copy_files, is_free, make_folder, move_folder, write_json, write_text
from multipress.engines.job import ANYWHERE, Places
from multipress.errors import ArtifactError, RunError, SettingError, StoreError
from multipress.measure import measure_quality
from multipress.models.pretrained import identify
from multipress.records import Run
from multipress.shrink import make_named
from multipress.spec import DataSpec, TrainingSpec
from multipress.store import Store

__all__ = ["Asked", "Compressed", "fit"]

LEARNING_RATES = (1e-4, 3e-4, 1e-3)  # for an encoder without a head; what a classifier is trained on with is in between
CLASSIFIER_RATE = 3e-4  # and three times that: two classes want the one, many the other (docs/log.md)
WINNER = "winner.json"


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
        learn_from: Folders of runs of earlier studies and searches, from which to learn what to try first.

    Raises:
        SettingError: there are texts without labels and others with.
    """

    model: str
    data: DataSpec
    test: str = ""
    max_length: int = TrainingSpec.max_length
    epochs: int = 0
    unlabeled: str = ""
    learn_from: tuple[str, ...] = ()

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
        self.folder = out.parent / f"{out.name}.search"
        self._answers = Memo(self.folder / "answers.json")

    def run(self) -> Compressed:
        make_named(self._asked.model, on_note=self._note)
        # Read before anything is written.
        for folder in self._given.learn_from:
            Store(Path(folder)).runs()  # raises where there are none
        texts, notes = texts_to_label(self._asked) if self._asked.unlabeled else ([], [])
        read = None if self._asked.unlabeled else self._read()
        make_folder(self.folder)
        lock = Lock(self.folder / "lock")
        if not lock.acquire():
            raise StoreError(f"Another search works in {self.folder}. Wait for it, or name another place with -o.")
        try:
            if read is None:
                for note in notes:
                    self._note(note)
                self._asked = label_texts(self._asked, texts, self.folder, self._places, self._note)
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
        tries = self._tries(model, rows)
        self._check_place(tries)
        base = Recipe(model, rate=0, learning_rate=CLASSIFIER_RATE, epochs=self._asked.epochs or 1)
        chosen = self._pace(tries, base, rows)
        rows, base = chosen.of(rows), replace(base, epochs=chosen.epochs)
        with closing(self._tries(model, rows, chosen.batch_size)) as tries:
            return self._search(tries, rows, base)

    def _search(self, tries: Tries, rows: SearchRows, base: Recipe) -> Compressed:
        shapes = Shapes(base.model, self._budget, tries, self.folder, self._places, self._note)
        small = shapes.small_enough(base)  # what cannot be is said before anything is trained
        before, score, base = self._before(tries, base, rows)
        self._note(f"The model before: score {score:.4f} on {len(rows.select):,} rows to select by.")
        least = self._budget.least_score(score)
        base = shapes.fast_enough(replace(base, model=small, rate=None), before)
        elsewhere = self._elsewhere(tries)
        base = replace(base, learning_rate=best_learning_rate(elsewhere) or base.learning_rate)
        limits = [self._budget.max_mb, self._budget.max_ms, least]
        earlier = tries.results_of(self._answers.get(["earlier", tries.facts, limits], tries.known))
        earlier = [*as_results(elsewhere, base, score, tries), *earlier]
        search = Search(tries, self._budget, base, least, shapes.sizes(base), earlier)
        search.run(self._has_time, lambda result: self._publish_and_say(tries, result), self._standing(tries))
        if search.winner is None:
            raise RunError(self._nearest(tries, least))
        self._publish(tries, search.winner)
        comparison = compare(before, self._out, rows.task, rows.report)
        name = Path(self._given.model).name
        card = winners_card(open_artifact(self._out), comparison, self._command(), name)
        write_text(self._out / "README.md", card)
        return self._told(search.winner, comparison, tries, rows)

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
        """The winner of an earlier search for the same model on the same rows that lies at `out`."""
        path = self.folder / WINNER
        if is_free(self._out) or not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            run_id, facts = stored["run_id"], stored["facts"]
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{path} is damaged. Remove it and {self._out}; the winner is found again.") from None
        if facts != tries.facts or open_artifact(self._out).facts["run_id"] != run_id:
            return None
        return next(iter(tries.results_of([run_id])), None)

    def _tries(self, model: str, rows: SearchRows, batch_size: int = TrainingSpec.batch_size) -> Tries:
        training = TrainingSpec(max_length=self._asked.max_length, batch_size=batch_size)
        is_timed = self._budget.max_ms is not None
        return Tries(self.folder / "runs", rows, training, self._places, self._on_end, is_timed, model)

    def _pace(self, tries: Tries, base: Recipe, rows: SearchRows) -> Pace:
        """Passes over how many rows; the same for the same time, whatever else the computer does."""
        question = ["pace", tries.facts, self._asked.epochs, self._budget.minutes]

        def answer() -> dict[str, int]:
            one = tries.seconds(replace(base, epochs=1, rate=1.0))  # counting bits takes longer than training does
            left = 60 * self._budget.minutes - (time.monotonic() - self._began)
            chosen = pace(one, rows.num_train, max(left, 0.0), self._asked.epochs)
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

    def _elsewhere(self, tries: Tries) -> list[Earlier]:
        """What earlier studies and searches say; read once, so that the same search goes the same way."""
        folders = [str(folder) for folder in self._given.learn_from]
        if not folders:
            return []
        question = ["elsewhere", tries.facts, folders]
        read = self._answers.get(question, lambda: [one.to_json() for one in read_earlier([*map(Path, folders)])])
        found = [Earlier.from_json(one) for one in read]
        rate = best_learning_rate(found)
        first = (
            "none with a rate, so that the first learning rate is as ever"
            if rate is None
            else (f"learning rates of about {rate:g} were best, which is tried first")
        )
        self._note(f"Earlier runs that a search could have tried: {len(found)}; {first}.")
        return found

    def _has_time(self, seconds: float) -> bool:
        return time.monotonic() - self._began + seconds < 60 * self._budget.minutes

    def _publish_and_say(self, tries: Tries, result: Result) -> None:
        self._publish(tries, result)
        self._note(
            f"The best so far: {result.recipe.text()}: score {result.score:.4f}, {result.package_bytes / 1e6:.2f} MB, "
            f"at {self._out}"
        )

    def _publish(self, tries: Tries, result: Result) -> None:
        """Put an artifact at `out`, in place of an earlier winner; between two renames nothing is there."""
        if not is_free(self._out) and open_artifact(self._out).facts["run_id"] == result.run_id:
            return
        old, made = self.folder / "replaced", self.folder / "next"
        for place in (old, made):
            shutil.rmtree(place, ignore_errors=True)
        copy_files(result.artifact, made)
        write_json(self.folder / WINNER, {"run_id": result.run_id, "facts": tries.facts})
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
