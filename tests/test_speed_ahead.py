"""Shares for a speed-up: by measured times, the same for the same table, checked by timing the shape itself."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipress import speed_ahead
from multipress.errors import SettingError
from multipress.methods import build_method
from multipress.models.families import FAMILIES
from multipress.spec import MethodSpec
from multipress.speed_ahead import SpeedTable, choose_shares, shares_for_speedup
from tiny import bert_config, family_config

ASKED = (MethodSpec("structured", {"speedup": 2.0}), MethodSpec("quantization", {}))
falling = st.lists(st.floats(0.1, 1.0), min_size=3, max_size=3).map(lambda parts: sorted(parts, reverse=True))


@given(heads=falling, neurons=falling, target=st.floats(0.2, 1.0))
def test_the_shares_are_the_best_that_the_table_lets_through(heads, neurons, target):
    shares = (0.25, 0.5, 0.75)
    table = SpeedTable(1.0, 1.0, tuple(zip(shares, heads, strict=True)), tuple(zip(shares, neurons, strict=True)))
    found = choose_shares(table, target, (4, 8), 0.75, {"heads": None, "neurons": None})
    grid = [step / 24 for step in range(19)]
    left = [
        (4 * np.log(1 - a) + 8 * np.log(1 - b), a, b)
        for a, b in itertools.product(grid, grid)
        if table.estimate(a, b) <= target
    ]
    if found is None:
        assert not left
    else:
        assert table.estimate(*found) <= target
        assert 4 * np.log(1 - found[0]) + 8 * np.log(1 - found[1]) == pytest.approx(max(left)[0])


def test_what_parts_save_adds_up_and_a_wider_model_is_never_faster():
    table = SpeedTable(10.0, 8.0, ((0.25, 7.5), (0.5, 7.9), (0.75, 6.0)), ((0.25, 7.0), (0.5, 6.0), (0.75, 5.0)))
    assert table.estimate(0, 0) == 8.0
    assert table.estimate(0.25, 0.5) == pytest.approx(8.0 - 0.5 - 2.0)
    assert table.estimate(0.5, 0) == table.estimate(0.25, 0) == 7.5
    assert table.estimate(0.125, 0) == pytest.approx(7.75)


class Clock:
    """Stands for the timing: a block's time is that of its weights, with noise."""

    def __init__(self, monkeypatch, noise: float = 0.0):
        self.calls, self._random, self._noise = 0, np.random.default_rng(0), noise
        monkeypatch.setattr(speed_ahead._Timing, "times", self.times)

    def times(self, shapes):
        self.calls += 1
        ms = {name: 1 + blocks * (4 * (1 - a) + 8 * (1 - b)) for name, (blocks, a, b) in shapes.items()}
        return {name: value * (1 + self._noise * self._random.random()) for name, value in ms.items()}


def test_a_speedup_becomes_shares_that_are_found_again_without_timing(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIPRESS_CACHE", str(tmp_path))
    clock, notes = Clock(monkeypatch, noise=0.1), []
    config = bert_config(10, num_attention_heads=4, intermediate_size=64)
    first = shares_for_speedup(ASKED, config, notes.append)
    timed = clock.calls
    assert timed >= 2
    assert shares_for_speedup(ASKED, config) == first
    assert clock.calls == timed
    settings = first[0].settings
    assert 0 < settings["heads"] <= 0.75
    assert f"heads={settings['heads']:g},neurons={settings['neurons']:g}" in notes[0]
    assert first[1] == ASKED[1]
    given = MethodSpec("structured", {"speedup": 2.0, "heads": settings["heads"], "neurons": settings["neurons"]})
    again = shares_for_speedup((given,), config)[0]
    assert clock.calls == timed
    assert build_method("structured", again.settings).settings() == settings


def test_a_damaged_table_is_measured_again(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIPRESS_CACHE", str(tmp_path))
    clock, config = Clock(monkeypatch), bert_config(10, num_attention_heads=4)
    first = shares_for_speedup(ASKED, config)
    (file,) = (tmp_path / "speed").iterdir()
    file.write_text('{"found": {"heads": NaN, "neurons": 2}}')
    timed = clock.calls
    assert shares_for_speedup(ASKED, config) == first
    assert clock.calls > timed


def test_what_cannot_be_reached_is_said_with_what_can(monkeypatch):
    monkeypatch.setenv("MULTIPRESS_CACHE", "")
    Clock(monkeypatch)
    asked = (MethodSpec("structured", {"speedup": 50.0}),)
    with pytest.raises(SettingError, match=r"only about 3\.\d times"):
        shares_for_speedup(asked, bert_config(10, num_attention_heads=8))


def test_without_a_speedup_nothing_is_timed(monkeypatch):
    clock = Clock(monkeypatch)
    methods = (MethodSpec("structured", {}), MethodSpec("pruning", {}))
    assert shares_for_speedup(methods, bert_config(10)) == methods
    assert not clock.calls


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_can_be_timed(family, monkeypatch):
    monkeypatch.setattr(speed_ahead, "_REPEATS", 1)
    timing = speed_ahead._Timing(family_config(family, 40), 1, 16, 0.34, "int8")
    times = timing.times({"whole": (3, 0.0, 0.0), "cut": (timing.num_left, 0.5, 0.5)})
    assert timing.num_left == 2
    assert all(value > 0 for value in times.values())
