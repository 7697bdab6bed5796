"""The search, on tries that cost nothing: a model whose score and size are known functions of the bits."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from multipress.budget.limits import Budget
from multipress.budget.proposals import AS_LARGE
from multipress.budget.search import NEAR, PATIENCE, PLAIN_RATE, Search
from multipress.budget.sizes import FEWEST_BITS, MARGIN, MOST_BITS, line_by_words, smallest_bytes
from multipress.budget.told import nearest
from multipress.budget.tries import Recipe, Result
from multipress.errors import SettingError
from multipress.size_ahead import SizeAhead

SHARE = {"all": 1.0, "general": 0.7, "rows": 0.4}  # of a million weights
BEST_RATE = 3e-4


class Known:
    """A model of a million weights and 100 kB beside; its score falls with the bits, a little with fewer words."""

    def __init__(self, *, words=("all", "general", "rows"), milliseconds=None, error=0.0):
        self.results: list[Result] = []
        self.rounds: list[list[Recipe]] = []
        self.workers = 2
        self._words = words
        self._milliseconds = milliseconds
        self._error = error

    @staticmethod
    def bits(recipe):
        """Mean bits a weight; of pruned weights a bit tells where the others are."""
        plain = 7.3 / 8 * recipe.bits * (1 - recipe.sparsity) + (0.9 if recipe.sparsity else 0)
        return plain if recipe.rate is None else recipe.rate

    def bytes(self, recipe):
        bits = self.bits(recipe)
        return 100_000 + SHARE[recipe.words] * 1e6 * bits / 8

    def score(self, recipe):
        bits = self.bits(recipe) - (0.5 if recipe.sparsity else 0)
        rate = abs(math.log(recipe.learning_rate / BEST_RATE))
        return 0.9 - 0.05 * 2**-bits * 4 - 0.001 * rate - 0.002 * (recipe.words == "rows") + 0.0001 * recipe.epochs

    def size(self, recipe):
        if recipe.words not in self._words:
            raise SettingError("no such words")
        return SizeAhead(0, round(self.bytes(recipe)), False)

    was_stopped = False

    def seconds(self, *recipes):
        return self.seconds_of_new(recipes)

    def seconds_of_new(self, recipes):
        return max(10.0 * recipe.epochs for recipe in recipes)

    def run(self, recipes, on_result=lambda result: None):
        self.rounds.append(list(recipes))
        made = [
            Result(r, f"{i}", Path("x"), self.score(r), round(self.bytes(r)), self._milliseconds, self._error)
            for i, r in enumerate(recipes)
        ]
        self.results += made
        for result in made:
            on_result(result)
        return made


def search(budget, known, least=None, rounds=math.inf, standing=None):
    seen = []
    base = Recipe("m", learning_rate=1e-4)
    found = Search(known, budget, base, least, line_by_words(known, base))
    found.run(lambda seconds: len(known.rounds) < rounds, seen.append, standing)
    return found, seen


@pytest.mark.parametrize("least", [0.7, 0.8, 0.85, 0.88])
def test_with_a_limit_of_score_it_finds_nearly_the_fewest_bits_that_keep_it(least):
    known = Known()
    found, seen = search(Budget(min_score=least), known, least)
    best = found.best
    assert best.score >= least
    keep = [rate for rate in [FEWEST_BITS + n / 100 for n in range(400)] if rate <= MOST_BITS]
    words = best.recipe.words
    fewest = min(rate for rate in keep if known.score(replace(best.recipe, rate=rate, words="general")) >= least)
    assert best.recipe.rate <= fewest * NEAR**2
    assert words == "rows" or known.score(replace(best.recipe, words="rows")) < least
    assert all(later.package_bytes < earlier.package_bytes for earlier, later in pairwise(seen))


@pytest.mark.parametrize("megabytes", [0.2, 0.25, 0.4, 0.6, 0.9])
def test_within_a_size_it_fills_the_size_with_bits(megabytes):
    known = Known()
    found, seen = search(Budget(max_mb=megabytes), known)
    best = found.best
    assert 0.85 * megabytes * 1e6 < best.package_bytes <= megabytes * 1e6 or best.recipe.rate in (None, MOST_BITS)
    assert best.score == max(result.score for result in known.results if result.package_bytes <= megabytes * 1e6)
    assert best.score >= known.score(replace(best.recipe, learning_rate=BEST_RATE, epochs=2 * 3)) - 0.0015
    assert all(later.score > earlier.score for earlier, later in pairwise(seen))


def test_time_that_is_too_short_for_many_epochs_is_spent_on_fewer():
    """Base 3 epochs: 6 and 12 take 60 and 120 s a round. Then there are 45 s for each round that is left."""
    known = Known()
    base = Recipe("m", learning_rate=1e-4, epochs=3)
    found = Search(known, Budget(max_mb=0.3), base, None, line_by_words(known, base))
    found.run(lambda seconds: seconds <= 45, lambda result: None)
    epochs = [max(recipe.epochs for recipe in one) for one in known.rounds]
    assert max(epochs[2:]) == 4
    assert len(epochs) > 4
    assert not found.ran_out
    short = Search(Known(), Budget(max_mb=0.3), base, None, line_by_words(known, base))
    short.run(lambda seconds: seconds < 10, lambda result: None)
    assert short.ran_out


def test_a_search_that_repeats_proposes_the_same_whatever_time_is_left():
    """What was done takes no time the second time; how many epochs there is time for was kept."""
    kept, rounds, left = {}, [], [700.0]
    for _ in range(2):
        known, done = Known(), {one for tries in rounds for one in tries}

        class Clock:
            seconds = 0.0

        def run(recipes, on_result=lambda result: None, *, known=known, done=done, clock=Clock):
            clock.seconds += 0.0 if set(recipes) <= done else known.seconds(*recipes)
            return Known.run(known, recipes, on_result)

        known.run = run
        base = Recipe("m", learning_rate=1e-4, epochs=3)

        def recall(question, answer):
            key = str(question)
            if key not in kept and (value := answer()) is not None:
                kept[key] = value
            return kept.get(key)

        found = Search(known, Budget(max_mb=0.3), base, None, line_by_words(known, base), recall=recall)
        found.run(lambda seconds, clock=Clock: clock.seconds + seconds <= left[0], lambda result: None)
        rounds.append([recipe for tries in known.rounds for recipe in tries])
    assert rounds[1][: len(rounds[0])] == rounds[0]
    assert len(rounds[0]) > 8


def test_eight_bits_are_taken_where_they_fit():
    found, _ = search(Budget(max_mb=1.2), Known())
    assert found.best.recipe.rate is None
    assert found.best.recipe.words == "all"


@pytest.mark.parametrize(("budget", "least"), [(Budget(max_mb=1.2), None), (Budget(min_score=0.8), 0.8)])
def test_a_model_that_is_fine_tuned_already_hardly_moves_in_8_bits(budget, least):
    known, other = Known(), Known()
    for one, is_whole in ((known, True), (other, False)):
        base = Recipe("m", learning_rate=1e-4)
        found = Search(one, budget, base, least, line_by_words(one, base), is_whole=is_whole)
        found.run(lambda seconds, one=one: not one.rounds, lambda result: None)
    first = [recipe for recipe in known.rounds[0] if recipe.rate is None]
    assert first[0].learning_rate == PLAIN_RATE
    assert {recipe.learning_rate for recipe in known.rounds[0] if recipe.rate is not None} <= {1e-4}
    assert next(recipe for recipe in other.rounds[0] if recipe.rate is None).learning_rate == 1e-4


def test_both_limits_together():
    known = Known()
    found, _ = search(Budget(max_mb=0.5, min_score=0.8), known, 0.8)
    assert found.best.package_bytes <= 500_000
    assert found.best.score >= 0.8
    known = Known()
    found, _ = search(Budget(max_mb=0.16, min_score=0.88), known, 0.88)
    assert found.best is None
    assert known.results  # so that the nearest can be told


def test_a_tokenizer_that_loses_no_words_is_no_hindrance():
    found, _ = search(Budget(min_score=0.8), Known(words=("all",)), 0.8)
    assert found.best.recipe.words == "all"


def test_no_round_begins_without_time_but_the_first_ones_until_something_fits():
    known = Known()
    found, _ = search(Budget(min_score=0.8), known, 0.8, rounds=1)
    assert len(known.rounds) == 1
    assert found.best is not None


def test_a_model_that_is_too_slow_never_wins():
    found, _ = search(Budget(max_mb=0.5, max_ms=2.0), Known(milliseconds=3.0))
    assert found.best is None
    found, _ = search(Budget(max_mb=0.5, max_ms=2.0), Known(milliseconds=1.0))
    assert found.best is not None


def test_the_smallest_size_is_known_without_a_try():
    known = Known()
    smallest = smallest_bytes(line_by_words(known, Recipe("m")))
    assert smallest == pytest.approx((100_000 + 0.4e6 * FEWEST_BITS / 8) / MARGIN, rel=1e-3)
    assert not known.rounds


def test_every_limit_from_the_smallest_size_on_is_tried():
    smallest = smallest_bytes(line_by_words(Known(), Recipe("m"))) / 1e6
    for part in (1.0001, 1.005, 1.02, 1.1):
        found, _ = search(Budget(max_mb=part * smallest), Known())
        assert found.best is not None


@pytest.mark.parametrize(
    ("budget", "least"),
    [(Budget(min_score=0.8), 0.8), (Budget(max_mb=0.4), None), (Budget(max_mb=0.5, min_score=0.8), 0.8)],
)
def test_the_same_search_goes_the_same_way_with_a_winner_standing(budget, least):
    known, again = Known(), Known()
    first, _ = search(budget, known, least)
    second, seen = search(budget, again, least, standing=first.winner)
    assert again.rounds == known.rounds
    assert second.winner == first.winner
    assert not seen  # what stands is not put there again


def test_what_stands_is_never_replaced_by_worse():
    first, _ = search(Budget(min_score=0.8), Known(), 0.8)
    few, seen = search(Budget(min_score=0.8), Known(), 0.8, rounds=1, standing=first.winner)
    assert few.best.package_bytes > first.winner.package_bytes
    assert few.winner == first.winner
    assert not seen
    other, _ = search(Budget(min_score=0.89), Known(), 0.89, standing=first.winner)  # it does not keep this limit
    assert other.winner.score >= 0.89


@pytest.mark.parametrize("budget", [Budget(max_mb=0.4), Budget(min_score=0.8)])
def test_rounds_in_which_all_fails_end_nothing_but_themselves(budget):
    class Failing(Known):
        def run(self, recipes, on_result=None):
            found = super().run(recipes)
            if len(self.rounds) in (3, 5):
                self.results = [result for result in self.results if result not in found]
                return []
            return found

    known = Failing()
    found, _ = search(budget, known, budget.least_score(0.0))
    assert found.winner is not None
    assert 6 < len(known.rounds) < 40


def test_the_learning_rate_that_worked_is_kept():
    class Slow(Known):
        def score(self, recipe):
            return super().score(recipe) - (0.5 if recipe.learning_rate < BEST_RATE / 1.1 else 0)

    found, _ = search(Budget(max_mb=0.5, min_score=0.85), Slow(), 0.85)
    assert found.best.recipe.rate < 2.5
    assert found.best.recipe.learning_rate == pytest.approx(BEST_RATE)


@pytest.mark.parametrize(("best", "second"), [(3e-4, 9e-4), (1e-4, 1e-4 / 3)])
def test_within_a_size_two_learning_rates_come_first_and_then_one_further_the_same_way(best, second):
    class Sharp(Known):
        def score(self, recipe):
            return 0.9 - 0.01 * abs(math.log(recipe.learning_rate / best)) - 0.005 * (recipe.words == "rows")

    known = Sharp()
    found, _ = search(Budget(max_mb=0.12), known, rounds=2)
    first = known.rounds[0]
    assert [one.learning_rate for one in first] == pytest.approx([1e-4, 3e-4])
    assert len({(one.words, one.rate) for one in first}) == 1
    assert [one.learning_rate for one in known.rounds[1]] == pytest.approx([second, best][: len(known.rounds[1])])
    # The other words at the better rate.
    others = [one for one in known.rounds[1][1:] if one.epochs == first[0].epochs]
    assert {one.words for one in others}.isdisjoint({first[0].words})
    assert found.best.recipe.learning_rate == pytest.approx(best)


@pytest.mark.parametrize("budget", [Budget(min_score=0.85), Budget(max_mb=0.5, min_score=0.85)])
def test_a_score_is_kept_by_a_standard_error_where_one_does(budget):
    surely, _ = search(budget, Known(error=0.01), 0.85)
    assert surely.is_sure(surely.best)
    assert surely.best.score >= 0.86
    barely, _ = search(budget, Known(), 0.85)
    assert barely.best.score < surely.best.score
    assert barely.best.package_bytes < surely.best.package_bytes


def test_where_none_is_sure_the_one_that_scores_highest_wins():
    known = Known(error=0.2)
    found, _ = search(Budget(min_score=0.85), known, 0.85)
    assert not found.is_sure(found.best)
    assert found.best.score == max(result.score for result in known.results)


def test_the_smallest_that_is_sure_loses_too_much_much_more_rarely_than_the_smallest_that_passes():
    """The docstring's simulation: eleven sizes, 1,500 rows, 4 % of the rows change, a point may be lost."""
    random, drops, rows = np.random.default_rng(0), np.linspace(0, 0.05, 11), 1500
    gained = np.maximum(0.04 - drops, 0) / 2
    counts = np.array(
        [random.multinomial(rows, [g, g + d, 1 - 2 * g - d], 4000) for g, d in zip(gained, drops, strict=True)]
    )
    change = (counts[..., 0] - counts[..., 1]) / rows
    error = np.sqrt((counts[..., 0] + counts[..., 1]) / rows - change**2) / math.sqrt(rows)
    found = Search(Known(), Budget(max_drop=0.01), Recipe("m"), -0.01, line_by_words(Known(), Recipe("m")))
    lost = {"fits": 0, "is_sure": 0}
    for draw in range(400):
        for name in lost:
            tries = [
                Result(Recipe("m"), "0", Path("x"), change[i, draw], 11 - i, error=error[i, draw]) for i in range(11)
            ]
            passing = [i for i in range(11) if getattr(found, name)(tries[i])]
            lost[name] += drops[max(passing, default=0)] > 0.0101
    assert 0.15 < lost["fits"] / 400 < 0.3
    assert lost["is_sure"] / 400 < 0.06


def test_what_decided_about_the_shape_may_win_but_not_what_was_not_compressed():
    known = Known()
    done = known.run([Recipe("m", rate=None, epochs=9), Recipe("m", rate=0, epochs=999)])
    found = Search(known, Budget(max_mb=1.2), Recipe("m"), None, line_by_words(known, Recipe("m")))
    seen = []
    found.run(lambda seconds: False, seen.append)
    assert seen[0] == done[0]
    assert found.winner.recipe.rate != 0


def test_a_try_is_taken_as_soon_as_it_is_done():
    class Stopped(Known):
        def run(self, recipes, on_result):
            super().run(recipes[:1], on_result)
            raise KeyboardInterrupt

    known, seen = Stopped(), []
    base = Recipe("m", learning_rate=1e-4)
    stopped = Search(known, Budget(max_mb=0.4), base, None, line_by_words(known, base))
    with pytest.raises(KeyboardInterrupt):
        stopped.run(lambda seconds: True, seen.append)
    assert seen == known.results


def test_as_many_are_proposed_as_there_are_workers():
    known = Known()
    known.workers = 5
    search(Budget(max_mb=0.4), known)
    assert max(map(len, known.rounds)) == 5


def test_the_nearest_is_that_which_misses_the_limits_least():
    known = Known(milliseconds=4.0)
    near, far = (
        Result(Recipe("m"), "0", Path("near" if ms < 5 else "far"), score, size, ms)
        for score, size, ms in ((0.8, 550_000, 2.1), (0.89, 950_000, 9.0))
    )
    budget = Budget(max_mb=0.5, max_ms=2.0, min_score=0.7)
    found = Search(known, budget, Recipe("m"), 0.7, line_by_words(known, Recipe("m")))
    dense = Result(Recipe("m", rate=0), "0", Path("dense"), 0.9, 1, 1.0)
    said = nearest([far, near, dense], found, budget, 0.7)
    assert "score 0.8000, 0.550 MB, 2.10 ms, in near. Allow more MB, more ms, or more time" in said
    assert "with a score of 0.7000 or more" in said
    low = Result(Recipe("m"), "0", Path("low"), 0.6, 400_000, 1.0)
    assert "Allow a lower score, or" in nearest([low], found, budget, 0.7)
    assert "Allow a larger drop, or" in nearest([low], found, Budget(max_drop=0.1), 0.7)
    assert nearest([dense], found, budget, 0.7) == "No try ended well. See the runs of the search."


def test_no_worker_waits_in_the_second_round():
    known = Known(words=("all",))
    search(Budget(max_mb=0.3), known, rounds=2)
    further, longer = known.rounds[1]
    assert longer.epochs == 2 * further.epochs
    assert longer.learning_rate in [one.learning_rate for one in known.rounds[0]]
    # What is better with more epochs gets twice as many again.
    known = Known(words=("all",))
    search(Budget(max_mb=0.3), known, rounds=4)
    assert [max(one.epochs for one in tries) for tries in known.rounds] == [3, 6, 12, 24]


@pytest.mark.parametrize(("megabytes", "bits"), [(0.3, []), (0.5, [3]), (0.6, [4])])
def test_fixed_bits_are_tried_in_the_second_round_where_they_fit_without_zeros(megabytes, bits):
    known = Known(words=("all",))
    search(Budget(max_mb=megabytes), known, rounds=2)
    fixed = [recipe for recipe in known.rounds[1] if recipe.rate is None]
    assert [recipe.bits for recipe in fixed] == bits
    assert all(recipe.sparsity == 0 and recipe.learning_rate < 1e-4 for recipe in fixed)


def test_without_time_there_is_one_round_and_no_more():
    known = Known()
    found, _ = search(Budget(min_score=0.95), known, 0.95, rounds=0)
    assert len(known.rounds) == 1
    assert found.best is None


def test_what_no_rule_knows_is_found_with_the_time_that_is_left():
    class Soft(Known):
        def score(self, recipe):
            return super().score(recipe) - 0.02 * math.log(recipe.temperature)

    for budget, least in ((Budget(max_mb=0.3), None), (Budget(min_score=0.85), 0.85)):
        known = Soft()
        found, seen = search(budget, known, least)
        assert found.best.recipe.temperature < Recipe("m").temperature
        assert found.best is seen[-1]
        few, _ = search(budget, Soft(), least, rounds=len(known.rounds) // 2)
        key = (lambda r: -r.score) if least is None else (lambda r: r.package_bytes)
        assert key(found.best) <= key(few.best)


def test_the_same_search_proposes_the_same_again():
    first, again = Known(), Known()
    for known in (first, again):
        search(Budget(max_mb=0.4), known)
    assert first.rounds == again.rounds
    assert len(first.rounds) > 3
    assert all(len(one) == len(set(one)) for one in first.rounds)


@pytest.mark.parametrize(("budget", "least"), [(Budget(max_mb=0.3), None), (Budget(min_score=0.85), 0.85)])
def test_what_is_pruned_is_tried_last_and_wins_where_it_is_better(budget, least):
    class Pruned(Known):
        def score(self, recipe):
            return super().score(recipe) + (0.04 if recipe.sparsity else 0)

    known = Pruned()
    found, _ = search(budget, known, least)
    kinds = [any(recipe.bits < 8 for recipe in one) for one in known.rounds]
    assert kinds.index(True) >= 3 + PATIENCE
    assert found.best.recipe.sparsity > 0
    assert found.best.recipe.bits in (3, 4)
    assert found.best.recipe.rate is None
    if least is None:
        assert 0.9 * 300_000 < found.best.package_bytes <= 300_000


def test_the_search_ends_when_nothing_better_is_found():
    class Flat(Known):
        def score(self, recipe):
            return 0.8

    known = Flat()
    search(Budget(max_mb=0.4), known)
    better = sum(one.package_bytes < other.package_bytes for one, other in pairwise(known.results))
    assert 3 + 2 * PATIENCE <= len(known.rounds) <= 3 + PATIENCE * (2 + better)


def test_proposals_keep_to_the_size_and_learn_from_earlier_searches():
    known, other = Known(), Known()
    earlier = other.run([Recipe("m", rate=1.0, words="general", learning_rate=2e-4), Recipe("another", rate=1.0)])
    base = Recipe("m", learning_rate=1e-4)
    found = Search(known, Budget(max_mb=0.3), base, None, line_by_words(known, base), earlier)
    found.run(lambda seconds: True, lambda result: None)
    assert all(result.package_bytes <= 300_000 for result in known.results)
    plain = Known()
    search(Budget(max_mb=0.3), plain)
    assert plain.rounds[:3] == known.rounds[:3]
    assert plain.rounds[3:] != known.rounds[3:]


def test_proposed_learning_rates_lie_between_those_that_were_worse_on_both_sides():
    class OneGood(Known):
        def score(self, recipe):
            return 0.8 - 0.1 * abs(math.log(recipe.learning_rate / 3e-4))

    known = OneGood()
    search(Budget(max_mb=0.4), known)
    tried = []
    for number, one in enumerate(known.rounds):
        if number > 3:  # after the rules
            score, best, size = max(tried)
            worse = [rate for other, rate, bytes_ in tried if other < score and bytes_ >= AS_LARGE * size]
            lower, higher = max(rate for rate in worse if rate < best), min(rate for rate in worse if rate > best)
            for recipe in one:
                assert lower * 0.9 <= recipe.learning_rate <= higher * 1.1 or recipe.bits < 8
        tried += [(known.score(r), r.learning_rate, known.bytes(r)) for r in one if r.bits == 8]
    assert len(known.rounds) >= 4 + PATIENCE
