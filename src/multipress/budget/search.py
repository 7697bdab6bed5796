"""The search for a recipe that keeps to a budget: sizes are known before, scores are tried.

What is known beforehand decides what is tried. The paper's advice and our own results (docs/log.md) say: eight bits
cost nothing; below that, bits in an entropy coder with distillation keep more than zeros do, and at three or four bits
a weight as much as fixed bits; embeddings are most of the bytes, so that unused words go first. So one number is left
to be found, the bits a weight: with a limit of score the fewest that keep it, else as many as the size allows. What
time is left goes to recipes that Optuna proposes from all tries so far, until none of three rounds is better; then
pruned recipes of few bits are proposed too, until none of three rounds is better again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from multipress.budget.limits import Budget
from multipress.budget.proposals import RATE, Proposals
from multipress.budget.sizes import FEWEST_BITS, MARGIN, MOST_BITS, Sizes, smallest_bytes
from multipress.budget.tries import Recipe, Result, Tries

__all__ = ["Search"]

ENOUGH_BITS = 1.0  # with so many, words of a general text may stay
NEAR = 1.15  # two rates within this factor are the same
PLAIN_RATE = 1e-5  # learning rate of a fine-tuned model in 8 bits
FASTER, SLOWER, BETWEEN = 3.0, 1 / 3, 0.6  # other learning rates to try
SMALLER = (0.75, 0.97)  # of the smallest package that is good enough: what to look for next
AT_ONCE = 2  # proposals a round, or as many as there are workers
DOUBLINGS = 2  # of the epochs of the best, as long as they make it better
PATIENCE = 3  # rounds of proposals without anything better, after which other kinds are tried, and the search ends
FIXED_BITS = ("4", "3")  # of the paper's way, with zeros where they do not fit without
ZEROS, ZEROS_STEP = 19, 20  # at most so many of so many weights are pruned


class Search:
    """Finds the best recipe for one model.

    Args:
        tries: Runs recipes.
        budget: What is asked for.
        base: Model, learning rate and epochs of all tries.
        least: The least score that will do; None: any.
        sizes: Of the model, as `line_by_words` gives them.
        earlier: What came of earlier searches with other limits.
        is_whole: Whether the base is the model before itself, fine-tuned, with all its layers, heads and neurons. In 8
            bits it has nothing to learn, and large steps would only lead it away.
        recall: Gives the answer to a question again where the search repeats, as `Memo.get`.
    """

    def __init__(  # noqa: PLR0913 - all that a search is about, by name
        self,
        tries: Tries,
        budget: Budget,
        base: Recipe,
        least: float | None,
        sizes: dict[str, Sizes],
        earlier: Sequence[Result] = (),
        *,
        is_whole: bool = False,
        recall: Callable[[list[Any], Callable[[], Any]], Any] = lambda question, answer: answer(),
    ) -> None:
        self._plain = replace(base, rate=None, learning_rate=PLAIN_RATE if is_whole else base.learning_rate)
        self._tries = tries
        self._at_once = max(AT_ONCE, tries.workers)
        self._budget = budget
        self._base = base
        self._least = least
        self._sizes = sizes
        self._earlier = earlier
        self._recall = recall
        self._has_tried = False
        self._has_time: Callable[[float], bool] = lambda seconds: True
        self._on_best: Callable[[Result], None] = lambda result: None
        self.best: Result | None = None
        self.ran_out = False  # of time, when it ended
        self._num_proposed = 0
        self._standing: Result | None = None

    def run(
        self, has_time: Callable[[float], bool], on_best: Callable[[Result], None], standing: Result | None = None
    ) -> None:
        """Try until there is no time for another round, or until proposals bring nothing better any more.

        Args:
            has_time: Whether a round of so many seconds may still begin; the first one does in any case.
            on_best: Called with each result that keeps to the budget and is better than the one before.
            standing: What an earlier search found. It decides nothing here, so that the same search goes the same way,
                but only what is better takes its place.
        """
        self._has_time, self._on_best = has_time, on_best
        self._standing = standing if standing is not None and self.fits(standing) else None
        for result in self._tries.results:  # of those that decided about the shape
            self._take(result)
        if self._least is None:
            self._best_within_the_size()
        else:
            self._smallest_that_is_good_enough()
        self._go_on()

    @property
    def winner(self) -> Result | None:
        """The better one of what was found now and what stood before; None if nothing keeps to the budget."""
        found = [result for result in (self._standing, self.best) if result is not None]
        return min(found, key=self._key, default=None)

    def is_sure(self, result: Result) -> bool:
        """Whether a result keeps to every limit, that of the score by a standard error or more.

        Of many tries that just pass, most are lucky ones. In a simulation of eleven sizes that lose 0 to 5 points on
        1,500 rows, where a point is allowed, the smallest that passes loses more on 22 % of all draws; the smallest
        that passes by a standard error, on 3 %.
        """
        return self.fits(result) and (self._least is None or result.score - result.error >= self._least)

    def fits(self, result: Result) -> bool:
        """Whether a result keeps to every limit, as far as its score is known."""
        is_good = self._least is None or result.score >= self._least
        is_fast = self._budget.max_ms is None or (result.latency_ms or math.inf) <= self._budget.max_ms
        return is_good and is_fast and result.package_bytes <= self._budget.max_bytes

    def _try(self, *recipes: Recipe) -> list[Result] | None:
        """Results of a round, the first one whatever the time, without those that failed; None: no time is left."""
        seconds = self._tries.seconds(*recipes)
        if self._has_tried and not self._has_time(seconds):
            self.ran_out = True
            return None
        self._has_tried = True
        found = self._tries.run(recipes, self._take)
        self.ran_out = self._tries.was_stopped
        for result in found:
            self._take(result)
        return found

    def _take(self, result: Result) -> None:
        """Keep a result that is better than those before."""
        is_try = result.recipe.rate != 0
        if is_try and self.fits(result) and (self.best is None or self._key(result) < self._key(self.best)):
            self.best = result
            if self.winner is result:
                self._on_best(result)

    def _key(self, result: Result) -> tuple[float, ...]:
        """What is smaller of a better result."""
        if self._least is None:
            return -result.score, result.package_bytes
        if not self.is_sure(result):
            return 1, -result.score, result.package_bytes
        return 0, result.package_bytes, -result.score

    def _for_size(self) -> list[Recipe]:
        """Recipes that fill the size: eight bits where they fit; else a rate, with all words or with fewer."""
        limit = MARGIN * self._budget.max_bytes
        if self._tries.size(self._plain).package_bytes <= limit:
            return [self._plain]
        recipes = []
        for words, line in self._sizes.items():
            rate = min(line.rate(limit), MOST_BITS)
            if rate >= FEWEST_BITS:
                recipes.append(replace(self._base, rate=round(rate, 3), words=words))
            if rate >= ENOUGH_BITS:
                break
        return recipes[-2:]

    def _best_within_the_size(self) -> None:
        *others, one = self._for_size()
        first = self._try(one, replace(one, learning_rate=one.learning_rate * FASTER))
        if not first:
            return
        tried = max(first, key=lambda result: result.score).recipe
        further = FASTER if tried.learning_rate > one.learning_rate else SLOWER
        longer = replace(tried, epochs=2 * tried.epochs)
        second = [
            replace(tried, learning_rate=tried.learning_rate * further),
            *(replace(other, learning_rate=tried.learning_rate) for other in others),
            *(() if one == self._plain else self._fixed_bits()),
        ]
        if len(second) < self._at_once:  # a worker would wait
            second.append(longer)
        if not self._try(*second):
            return
        self._longer(tried, second)

    def _fixed_bits(self) -> list[Recipe]:
        """Four or three bits with a scale a row, if they fit without zeros: no worse than a rate (docs/log.md)."""
        slower = replace(self._base, rate=None, learning_rate=self._base.learning_rate * SLOWER)
        found = [replace(slower, bits=int(kind)) for kind in FIXED_BITS]
        limit = MARGIN * self._budget.max_bytes
        return [recipe for recipe in found if self._tries.size(recipe).package_bytes <= limit][:1]

    def _longer(self, tried: Recipe, done: Sequence[Recipe]) -> None:
        """Twice the epochs of the best, also with somewhat smaller steps, and twice again where they made it better.

        Args:
            tried: What is taken for the best where nothing keeps to the limits.
            done: Recipes that were tried.
        """
        for _ in range(DOUBLINGS):
            best = self.best.recipe if self.best else tried
            more = replace(best, epochs=2 * best.epochs)
            slower = replace(more, learning_rate=more.learning_rate * BETWEEN)
            if more in done or self._try(more, slower) is None:
                return
            if self.best is None or self.best.recipe.epochs != more.epochs:
                return

    def _smallest_that_is_good_enough(self) -> None:
        """Thirds of the range that is left, on a log scale, two tries side by side; then the words."""
        words = "general" if "general" in self._sizes else "all"
        line = self._sizes[words]
        low, high = FEWEST_BITS, min(MOST_BITS, line.rate(MARGIN * self._budget.max_bytes))
        if high < low:
            words, line = min(self._sizes.items(), key=lambda item: item[1].at_zero + FEWEST_BITS * item[1].per_bit)
            high = max(low, line.rate(MARGIN * self._budget.max_bytes))
        base = replace(self._base, words=words)
        if not self._fits_somewhere(base, high):
            return
        assert self.best is not None
        high = self.best.recipe.rate or high
        base = replace(base, learning_rate=self.best.recipe.learning_rate, epochs=self.best.recipe.epochs)
        while high / low > NEAR:
            rates = [round(low * (high / low) ** (part / 3), 3) for part in (1, 2)]
            found = self._try(*(replace(base, rate=rate) for rate in rates))
            if found is None:
                break
            good = [result.recipe.rate for result in found if self.is_sure(result)]
            high = min([high, *(rate for rate in rates if rate in good)])
            low = max([low, *(rate for rate in rates if rate not in good and rate < high)])  # it failed, or is too bad
        if "rows" in self._sizes:
            self._try(replace(self.best.recipe, words="rows"))

    def _fits_somewhere(self, base: Recipe, high: float) -> bool:
        """Whether the most bits that the size allows are surely good enough; at several learning rates, and longer."""
        most = replace(base, rate=round(high, 3))
        longer = replace(most, epochs=2 * most.epochs)
        faster, slower = (replace(most, learning_rate=most.learning_rate * factor) for factor in (FASTER, SLOWER))
        if self._budget.max_mb is None:
            self._try(self._plain, most)
            others = (longer, faster)
        else:
            self._try(most, faster)
            others = (longer, slower)
        if not self._has_sure_bits():
            self._try(*others)
        return self._has_sure_bits()

    def _has_sure_bits(self) -> bool:
        return self.best is not None and self.best.recipe.rate is not None and self.is_sure(self.best)

    def _go_on(self) -> None:
        """The time that is left: recipes that are learned from the tries so far."""
        fitting = self._most_bytes()
        words = [name for name, line in self._sizes.items() if line.rate(fitting) >= FEWEST_BITS]
        if not words:
            return
        if not self._propose(words, (RATE,), fitting):
            return
        best, largest = self.best.recipe if self.best else self._base, self._next_bytes(words, fitting)[1]
        steps = best.learning_rate / self._usual_rate(best)
        pruned = [self._filled(best, kind, largest) for kind in FIXED_BITS]
        if self._try(*(replace(one, learning_rate=self._usual_rate(one) * steps) for one in pruned)) is not None:
            self._propose(words, (RATE, *FIXED_BITS), fitting)

    def _usual_rate(self, recipe: Recipe) -> float:
        """The learning rate that is tried first for a recipe of this kind."""
        is_plain = recipe.rate is None and recipe.bits == self._plain.bits and not recipe.sparsity
        return self._plain.learning_rate if is_plain else self._base.learning_rate

    def _propose(self, words: Sequence[str], kinds: Sequence[str], fitting: float) -> bool:
        """Try proposals of these kinds until they bring nothing better any more; whether there is time for others."""
        proposals = Proposals(self._base, words, kinds, self._filled, self.loss, self._usual_rate)
        proposals.learn([*self._earlier, *self._tries.results])
        waited = 0
        while waited < PATIENCE:
            smallest, largest = self._next_bytes(words, fitting)
            if largest < smallest:
                return False
            epochs = self._epochs_in_time(proposals.fewest_epochs, proposals.most_epochs)
            if not epochs:
                self.ran_out = True
                return False
            asked = proposals.next(self._at_once, smallest, largest, epochs)
            before = self.best
            results = self._try(*(recipe for recipe, _ in asked))
            if results is None:
                return False
            found = {result.recipe: result for result in results}
            for recipe, tell in asked:
                tell(found.get(recipe))
            waited = 0 if self.best is not before else waited + 1
        return True

    def _epochs_in_time(self, fewest: int, most: int) -> int:
        """Most passes that a round of proposals has time for, the same where a search repeats; 0: not the fewest."""

        def answer() -> int | None:
            longest = replace(self._base, rate=1.0, epochs=most)
            seconds = self._tries.seconds_of_new([longest] * self._at_once)
            fitting = (epochs for epochs in range(most, fewest - 1, -1) if self._has_time(seconds * epochs / most))
            return next(fitting, None)

        self._num_proposed += 1
        return self._recall(["epochs", self._base.epochs, self._num_proposed], answer) or 0

    def _next_bytes(self, words: Sequence[str], fitting: float) -> tuple[float, float]:
        """Between which sizes the next proposals lie: what fits, or a little below the smallest that is good enough."""
        if self._least is None:
            return fitting, fitting
        smallest = MARGIN * smallest_bytes({name: self._sizes[name] for name in words})
        if self.best is None or not self.is_sure(self.best):
            return smallest, fitting
        low, high = (part * self.best.package_bytes for part in SMALLER)
        return max(smallest, low), min(fitting, high)

    def _most_bytes(self) -> float:
        """Of a package that is worth a try: what the size allows, but no more than 8 bits take."""
        eight = self._tries.size(self._plain).package_bytes
        return min(MARGIN * self._budget.max_bytes, eight)

    def _filled(self, recipe: Recipe, kind: str, package_bytes: float) -> Recipe:
        """A recipe with the bits, or the bits and zeros, that fill so many bytes."""

        def fits(one: Recipe) -> bool:
            return self._tries.size(one).package_bytes <= package_bytes

        if kind != RATE:
            pruned = replace(recipe, rate=None, bits=int(kind))
            low, high = 0, ZEROS
            if fits(replace(pruned, sparsity=high / ZEROS_STEP)):
                while low < high:  # the fewest that fit
                    middle = (low + high) // 2
                    is_enough = fits(replace(pruned, sparsity=middle / ZEROS_STEP))
                    low, high = (low, middle) if is_enough else (middle + 1, high)
                return replace(pruned, sparsity=low / ZEROS_STEP)
        recipe = replace(recipe, bits=8, sparsity=0.0)
        rate = self._sizes[recipe.words].rate(package_bytes)
        if rate <= MOST_BITS:
            return replace(recipe, rate=round(max(rate, FEWEST_BITS), 3))
        eight = replace(recipe, rate=None)
        return eight if fits(eight) else replace(recipe, rate=MOST_BITS)

    def loss(self, result: Result) -> float:
        """What proposals are to make small: what is free, and beyond it how far a result is from the limits."""
        above = max(0.0, math.log(result.package_bytes / self._budget.max_bytes)) if self._budget.max_mb else 0.0
        if self._budget.max_ms is not None and result.latency_ms is not None:
            above += max(0.0, math.log(result.latency_ms / self._budget.max_ms))
        if self._least is None:
            return 10 * above - result.score
        below = max(0.0, self._least - (result.score - result.error))
        return math.log(result.package_bytes) + 10 * above + (10 + 100 * below if below else 0.0)
