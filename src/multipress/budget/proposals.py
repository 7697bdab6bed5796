"""What to try next, once what the papers and our own results say has been tried: learned from all tries so far.

Bergstra et al. (2011): the tree-structured Parzen estimator, by Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from multipress.budget.tries import Recipe, Result

__all__ = ["RATE", "Proposals"]

RANDOM = 6  # tries before anything is learned from them
LEARNING_RATES = 10.0  # factor from the usual learning rate, up and down, where none was tried: beyond the rules
EPOCHS = 4  # the same of the epochs, up
SOFTEST = 8.0  # highest temperature of the teacher's answers; the lowest is 1

AS_LARGE = 0.97  # share of a package's bytes above which another says what its learning rate did, not its bytes
_ALL_RATES = (1 / LEARNING_RATES, LEARNING_RATES)

RATE = "rate"  # the kind of a recipe whose bits are a mean of an entropy coder, or plain 8 bits
Fill = Callable[[Recipe, str, float], Recipe]
Told = Callable[[Result | None], None]


class Proposals:
    """Asks Optuna for learning rate, epochs, temperature, words, kind and, where the smallest is looked for, the bytes.

    The same tries give the same proposals. Learning rates lie between those that were tried nearest to the best one's,
    below and above, and were worse with as many bytes.

    Args:
        base: Recipe of the model, whose learning rate and epochs are the middle of what is asked for.
        words: Which words may stay.
        kinds: How bytes are saved: `RATE`, or a number of bits, with so many weights pruned as the bytes ask for.
        fill: Gives a recipe of a kind the bits that fill so many bytes.
        loss: What to make small.
        usual: The learning rate that a recipe usually has, in which proposals are scaled.
    """

    def __init__(
        self,
        base: Recipe,
        words: Sequence[str],
        kinds: Sequence[str],
        fill: Fill,
        loss: Callable[[Result], float],
        usual: Callable[[Recipe], float],
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._base = base
        self._words = list(words)
        self._kinds = list(kinds)
        self._fill = fill
        self._usual = usual
        self._loss = loss
        self._rates: list[tuple[float, float, int]] = []  # of each try loss, learning rate in usual ones, bytes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=RANDOM, constant_liar=True)
        self._study = optuna.create_study(sampler=sampler)

    def learn(self, results: Sequence[Result]) -> None:
        """Take in what came of tries that were not proposed here; those of another model say nothing."""
        import optuna

        for result in results:
            recipe = result.recipe
            if recipe.model != self._base.model or recipe.rate == 0:
                continue
            values = {
                "learning_rate": recipe.learning_rate / self._usual(recipe),
                "epochs": recipe.epochs,
                "temperature": recipe.temperature,
                "words": recipe.words,
                "kind": _kind(recipe),
                "bytes": float(result.package_bytes),
            }
            space = self._space(result.package_bytes, result.package_bytes, self.most_epochs)
            try:
                trial = optuna.trial.create_trial(params=values, distributions=space, value=self._loss(result))
            except ValueError:
                continue  # beyond what is asked for here
            self._study.add_trial(trial)
            self._note(result)

    def next(self, count: int, smallest: float, largest: float, most_epochs: int) -> list[tuple[Recipe, Told]]:
        """Recipes to try side by side, each with what is to be told of its result.

        Args:
            count: How many.
            smallest: Fewest bytes of the package that make sense.
            largest: Most bytes.
            most_epochs: Passes that there is time for, from `fewest_epochs` to `most_epochs`.
        """
        made, around = [], self._around_the_best()
        for _ in range(count):
            trial = self._study.ask(self._space(smallest, largest, most_epochs, around))
            chosen = trial.params
            soft = float(f"{chosen['temperature']:.2g}")
            recipe = replace(self._base, words=chosen["words"], epochs=chosen["epochs"], temperature=soft)
            recipe = self._fill(recipe, chosen["kind"], chosen["bytes"])
            recipe = replace(recipe, learning_rate=float(f"{chosen['learning_rate'] * self._usual(recipe):.2g}"))
            is_it = _kind(recipe) == chosen["kind"]  # so many bytes may be too few for pruned weights
            made.append((recipe, self._told(trial) if is_it else self._told_nothing(trial)))
        return made

    def _told(self, trial: Any) -> Told:
        from optuna.trial import TrialState

        def tell(result: Result | None) -> None:
            if result is None:  # it failed or diverged
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, self._loss(result))
                self._note(result)

        return tell

    def _note(self, result: Result) -> None:
        rate = result.recipe.learning_rate / self._usual(result.recipe)
        self._rates.append((self._loss(result), rate, result.package_bytes))

    def _around_the_best(self) -> tuple[float, float]:
        """Learning rates nearest to the best one's, below and above, that were worse with as many bytes; usual ones."""
        if not self._rates:
            return _ALL_RATES
        least, best, size = min(self._rates)
        worse = [rate for loss, rate, other in self._rates if loss > least and other >= AS_LARGE * size]
        lower = max((rate for rate in worse if rate < best), default=_ALL_RATES[0])
        higher = min((rate for rate in worse if rate > best), default=_ALL_RATES[1])
        return lower, higher

    def _told_nothing(self, trial: Any) -> Told:
        tell = self._told(trial)
        return lambda result: tell(None)

    @property
    def fewest_epochs(self) -> int:
        """Fewest passes over the rows of a proposal."""
        return max(1, self._base.epochs // 2)

    @property
    def most_epochs(self) -> int:
        """Most passes over the rows of a proposal."""
        return EPOCHS * self._base.epochs

    def _space(
        self, smallest: float, largest: float, most_epochs: int, rates: tuple[float, float] = _ALL_RATES
    ) -> dict[str, Any]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        return {
            "learning_rate": FloatDistribution(*rates, log=True),
            "epochs": IntDistribution(self.fewest_epochs, most_epochs),
            "temperature": FloatDistribution(1.0, SOFTEST, log=True),
            "words": CategoricalDistribution(self._words),
            "kind": CategoricalDistribution(self._kinds),
            "bytes": FloatDistribution(float(smallest), float(max(smallest, largest)), log=True),
        }


def _kind(recipe: Recipe) -> str:
    return str(recipe.bits) if recipe.sparsity or recipe.bits < 8 else RATE
