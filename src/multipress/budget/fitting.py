"""From a model and a budget to one winner: rows, the model before, the search, and the winner at its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import open_artifact
from multipress.budget.asked import Asked
from multipress.budget.earlier import Earlier, as_results, best_learning_rate, read_earlier, store_of
from multipress.budget.limits import Budget
from multipress.budget.memo import Memo
from multipress.budget.pace import Pace, pace
from multipress.budget.place import Place
from multipress.budget.rows import ReadRows, SearchRows, read_rows, write_rows
from multipress.budget.search import Search
from multipress.budget.shapes import Shapes
from multipress.budget.start import check_labels, given_bytes, outputs_of, store_original
from multipress.budget.told import (
    Compressed,
    command_of,
    how_it_ended,
    missed_limits,
    nearest,
    only_guesses,
    why_chosen,
)
from multipress.budget.tries import Recipe, Result, Tries
from multipress.budget.unlabeled import label_texts, texts_to_label
from multipress.budget.winner import NAMES, compare, winners_card
from multipress.durable import Lock, is_free, make_folder, write_json, write_text
from multipress.engines.job import ANYWHERE, Places
from multipress.errors import ArtifactError, RunError, StoreError
from multipress.measure import measure_quality
from multipress.models.pretrained import identify
from multipress.plain_text import duration
from multipress.reproducibility import file_sha256
from multipress.shrink import make_named
from multipress.spec import TrainingSpec

__all__ = ["fit"]

LEARNING_RATES = (1e-4, 3e-4, 1e-3)  # for an encoder without a head; what a classifier is trained on with is in between
CLASSIFIER_RATE = 3e-4  # and three times that: two classes want the one, many the other (docs/log.md)
RESULT = "result.json"
LATE = 1.1  # of the time limit; rounds are planned to end within it


def fit(
    asked: Asked,
    budget: Budget,
    out: Path,
    *,
    places: Places = ANYWHERE,
    on_note: Callable[[str], None] = lambda note: None,
    on_begin: Callable[[str], None] = lambda what: None,
) -> Compressed:
    """Search for the model that keeps to a budget and put it at `out`.

    The best one so far lies at `out`, whole. All tries are runs in a store in `<out>.search`: the same
    call goes on where it was stopped. What it gives is in `<out>.search/result.json` too.

    Args:
        asked: What is to be compressed.
        budget: The limits.
        out: Folder to make; must not exist yet or hold an earlier winner of this search.
        places: Where models and data are found.
        on_note: Called with what happens, in words.
        on_begin: Called with what is tried now, in words.

    Raises:
        InputError: model, rows or limits cannot be used, or it is plain that the limits cannot be met.
        RunError: no try kept to the budget; the message says what came nearest.
        KeyboardInterrupt: it was stopped; the message says what lies at `out`.
    """
    fitting = _Fitting(asked, budget, out, places, on_note, on_begin)
    try:
        return fitting.run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Stopped. {fitting.standing} The same command goes on.") from None
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
        on_begin: Callable[[str], None],
    ) -> None:
        self._given = asked
        self._asked = asked  # with rows that the model has labelled, where it was given texts
        self._budget = budget
        self._out = out
        self._places = places
        self._note = on_note
        self._notes: list[str] = []
        self._on_begin = on_begin
        self._began = time.monotonic()
        self.folder = out.parent / f"{out.name}.search"
        self._answers = Memo(self.folder / "answers.json")
        self._place = Place(out, self.folder)
        self._question: list[Any] = []  # what a winner is chosen for
        self._chosen: set[str] = set()  # runs that were the best so far of this search
        self._seconds_to_compare = 0.0  # in the end, about
        self._was_late = False
        self._has_published = False  # in this call

    @property
    def standing(self) -> str:
        """What lies at the place, in a sentence."""
        run_id = self._place.run_id()
        if not run_id:
            return "Nothing keeps to the budget yet."
        if run_id in self._chosen:
            return f"The best so far is at {self._out}."
        return f"At {self._out} is what lay there before, maybe of other limits."

    def _warn(self, note: str) -> None:
        """Say what a user should know of the rows, and keep it for the end."""
        self._notes.append(note)
        self._note(note)

    def run(self) -> Compressed:
        make_named(self._asked.model, on_note=self._note)
        # Read before anything is written.
        for folder in self._given.learn_from:
            store_of(Path(folder)).runs()  # raises where there are none
        texts, notes = texts_to_label(self._asked) if self._asked.unlabeled else ([], [])
        read = None if self._asked.unlabeled else self._read()
        make_folder(self.folder)
        lock = Lock(self.folder / "lock")
        if not lock.acquire():
            raise StoreError(f"Another search works in {self.folder}. Wait for it, or name another place with -o.")
        try:
            self._place.recover()
            if read is None:
                for note in notes:
                    self._warn(note)
                self._asked = label_texts(self._asked, texts, self.folder, self._places, self._warn)
                read = self._read()
            labels = read.train.labels if read.task.target == "classes" else None
            outputs = outputs_of(self._asked.model, read.task, self.folder, self._places, labels)
            if note := outputs.note(read.task):
                self._warn(note)
            identify(outputs.model, self._places.models_dir).check_length(self._asked.max_length)
            return self._fit(outputs.model, write_rows(read, self._asked.data, outputs, self.folder))
        finally:
            lock.release()

    def _read(self) -> ReadRows:
        read = read_rows(self._asked.data, self._asked.test, self._places)
        if not self._asked.data.task and (read.text, read.label) != (self._asked.data.text, self._asked.data.label):
            self._note(f"Text: {', '.join(read.text)}; label: {read.label}.")
        for note in read.notes:
            self._warn(note)
        return read

    def _fit(self, model: str, rows: SearchRows) -> Compressed:
        tries = self._tries(model, rows)
        self._check_place(tries)
        is_timed = self._budget.max_ms is not None
        base = Recipe(model, 0, learning_rate=CLASSIFIER_RATE, epochs=self._asked.epochs or 1, static=is_timed)
        chosen, num_rows = self._pace(tries, base, rows), rows.num_train
        rows, base = chosen.of(rows), replace(base, epochs=chosen.epochs)
        with closing(self._tries(model, rows, chosen.batch_size)) as tries:
            return self._search(tries, rows, base, chosen, num_rows)

    def _search(self, tries: Tries, rows: SearchRows, base: Recipe, chosen: Pace, num_rows: int) -> Compressed:
        self._question = [tries.facts[0], file_sha256(Path(rows.data.dev)), rows.task.to_json()]
        shapes = Shapes(base.model, self._budget, tries, self.folder, self._places, self._note)
        model = base.model
        original = store_original(model, rows.task, self._asked.max_length, self.folder, self._places)
        tries.teacher = str(original or "")
        small = shapes.small_enough(base)  # what cannot be is said before anything is scored or trained
        shapes.check_speed(small)
        seconds = tries.seconds(replace(base, model=small, rate=1.0))
        if not self._has_time(seconds):
            self._note(
                f"A round of tries alone takes about {duration(seconds)}, more than is left of the "
                f"{duration(60 * self._budget.minutes)}; one is run in any case."
            )
        if original is None:
            before, score, base = self._fine_tuned(tries, base, rows)
        else:
            before, score = original, self._score_of_original(tries, original, rows)
        self._note(f"The model before: score {score:.4f} on {len(rows.select):,} rows to select by.")
        least = self._budget.least_score(score)
        base = shapes.fast_enough(replace(base, model=small, rate=None))
        elsewhere = self._elsewhere(tries)
        base = replace(base, learning_rate=best_learning_rate(elsewhere) or base.learning_rate)
        limits = [self._budget.max_mb, self._budget.max_ms, least]
        earlier = tries.results_of(self._answers.get(["earlier", tries.facts, limits], tries.known))
        earlier = [*as_results(elsewhere, base, score, tries), *earlier]
        is_whole = original is not None and base.model == model and not (base.heads or base.neurons)

        def recall(question: list[Any], answer: Callable[[], Any]) -> Any:
            return self._answers.get([*question, tries.facts, limits], answer)

        sizes = shapes.sizes(base)
        search = Search(tries, self._budget, base, least, sizes, earlier, is_whole=is_whole, recall=recall)
        standing = self._standing(tries)
        if standing is not None and search.fits(standing):
            self._chosen.add(standing.run_id)
            self._note(f"At {self._out} is the best of an earlier search: {standing.text()}.")
        tries.is_over = lambda: self._is_late() and (self._has_published or bool(self._chosen and tries.results))
        search.run(self._has_time, self._publish, standing)
        if search.winner is None:
            kept = "" if is_free(self._out) else f" {self.standing}"
            raise RunError(nearest(tries.results, search, self._budget, least) + kept)
        self._put(search.winner)
        is_given = original is not None
        size = given_bytes(self._given.model, self._places) if is_given else open_artifact(before).package_bytes
        return self._told(tries, search, rows, before, size, how_it_ended(search, chosen, num_rows))

    def _told(
        self, tries: Tries, search: Search, rows: SearchRows, before: Path, before_bytes: int, ended: str
    ) -> Compressed:
        """The winner beside the model before, with its card."""
        assert search.winner is not None
        comparison = compare(before, self._out, rows, before_bytes, is_labeled=not self._given.unlabeled)
        name, command = Path(self._given.model).name, command_of(self._given, self._budget)
        card = winners_card(open_artifact(self._out), comparison, command, name, f"Found by a search. {ended}")
        write_text(self._out / "README.md", card)
        tried = sum(result.recipe.rate != 0 for result in tries.results)
        alone_ms = None if self._budget.max_ms is None else tries.latency_now(self._out)
        found = Compressed(
            open_artifact(self._out),
            comparison,
            why_chosen(search.winner, search, self._budget, tried, len(rows.select)),
            search.winner.recipe.text(),
            self.folder / "runs",
            tuple(self._notes),
            missed_limits(comparison, self._budget, alone_ms),
            only_guesses(comparison, rows),
            ended,
            search.ran_out,
            alone_ms,
        )
        write_json(self.folder / RESULT, found.to_json())
        return found

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
        if not self._place.was_chosen_for(self._question):
            return None
        return next(iter(tries.results_of([self._place.run_id()])), None)

    def _tries(self, model: str, rows: SearchRows, batch_size: int = TrainingSpec.batch_size) -> Tries:
        training = TrainingSpec(max_length=self._asked.max_length, batch_size=batch_size)
        is_timed = self._budget.max_ms is not None
        return Tries(self.folder / "runs", rows, training, self._places, self._on_begin, self._note, is_timed, model)

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

    def _score_of_original(self, tries: Tries, original: Path, rows: SearchRows) -> float:
        """The score of a classifier as it is, on the rows to select by; its labels are looked at."""
        score, logits = self._teach(tries, original, rows)
        if rows.task.target == "classes":
            check_labels(self._asked.model, rows.task, logits.argmax(axis=1), rows.select.labels)
        return score

    def _fine_tuned(self, tries: Tries, base: Recipe, rows: SearchRows) -> tuple[Path, float, Recipe]:
        """The model before as an artifact, its score on the rows to select by, and the base of all tries."""
        self._note(f"{self._asked.model} has no head for this task; it is fine-tuned first, without compression.")
        found = tries.run([replace(base, learning_rate=rate) for rate in LEARNING_RATES])
        best = max(found, key=lambda result: result.score)
        score, logits = self._teach(tries, best.artifact, rows)
        if rows.task.target == "classes" and len(set(logits.argmax(axis=1).tolist())) == 1:
            raise RunError(
                f"{self._asked.model}, fine-tuned on these rows, calls every row "
                f"{rows.task.labels[int(logits[0].argmax())]!r}: it has learned nothing. Give more rows, or --epochs."
            )
        return best.artifact, score, replace(base, learning_rate=best.recipe.learning_rate)

    def _teach(self, tries: Tries, before: Path, rows: SearchRows) -> tuple[float, np.ndarray]:
        """Let tries learn from the model before and be compared with it; its score and logits on the rows to select by.

        How long that takes says how long comparing will take in the end.
        """
        began = time.monotonic()
        quality, logits = measure_quality(open_artifact(before), rows.select, rows.task)
        each = (time.monotonic() - began) / len(rows.select)
        self._seconds_to_compare = len(NAMES) * len(rows.report) * each
        tries.teacher = str(before)
        tries.reference = None if self._budget.min_score is not None else logits
        tries.limits_score = self._budget.least_score(0.0) is not None
        return next(row.value for row in quality if row.name == "score"), logits

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
        end = time.monotonic() - self._began + seconds + self._seconds_to_compare
        return end < 60 * self._budget.minutes

    def _is_late(self) -> bool:
        """Whether the time is over by more than a tenth; said once."""
        end = time.monotonic() - self._began + self._seconds_to_compare
        if not self._was_late and end >= LATE * 60 * self._budget.minutes:
            self._was_late = True
            until = "" if self._chosen or self._budget.max_ms is not None else " or until a try keeps to the budget"
            ends = "is stopped" if self._has_published else f"goes on to its end{until}"
            self._note(f"The {duration(60 * self._budget.minutes)} are over: the round of tries that runs {ends}.")
        return self._was_late

    def _publish(self, result: Result) -> None:
        self._put(result)
        self._has_published = True
        self._note(f"  the best so far, at {self._out}")

    def _put(self, result: Result) -> None:
        self._chosen.add(result.run_id)
        if self._place.run_id() != result.run_id:
            (self.folder / RESULT).unlink(missing_ok=True)  # it tells of another model
        self._place.put(result.artifact, result.run_id, self._question, result.recipe.text())
