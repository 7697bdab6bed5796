"""What is on disk is what the model computes, of every family."""

import errno

import numpy as np
import pytest
import torch

from multipress.dissect.capture import Wanted, capture
from multipress.dissect.reading import Reading
from multipress.errors import ArtifactError, RunError, SettingError
from multipress.models.families import FAMILIES
from multipress.runtime.tokenizer import Encoding
from tiny import family_config

UNITS = ([0, 1, 1, 2, 3, 3, 3, 4], [0, 1, 2, 3], [0, 1, 1, 1, 1, 2])


def model_of(name, seed=0):
    torch.manual_seed(seed)
    return FAMILIES[name].classifier(family_config(name, 40, num_labels=2)).eval()


def readings():
    random = np.random.default_rng(0)
    rows = []
    for units in UNITS:
        ids = random.integers(5, 40, size=len(units)).tolist()
        rows.append(Reading(Encoding(ids, [0] * len(ids)), np.array(units), max(units) - 1))
    return rows


def wanted_all():
    rows = readings()
    spans = [[(word, word + 1) for word in range(row.num_words)] for row in rows]
    return Wanted(rows, spans, [np.arange(row.num_words + 2) for row in rows])


@pytest.mark.parametrize("name", FAMILIES)
def test_states_and_maps_are_the_models_own_row_by_row(name, tmp_path):
    model, wanted = model_of(name), wanted_all()
    found = capture(model, wanted, tmp_path)
    encoder = FAMILIES[name].encoder(model)
    states, maps = [], []
    for row in wanted.readings:
        with torch.no_grad():
            out = encoder(torch.tensor([row.encoding.ids]), output_hidden_states=True, output_attentions=True)
        pieces = [np.flatnonzero(row.units == unit) for unit in range(row.num_words + 2)]
        states.append([[state[0, own].mean(0).numpy() for own in pieces[1:-1]] for state in out.hidden_states])
        maps.append(
            [
                [[[head[q][:, k].sum(1).mean().item() for k in pieces] for q in pieces] for head in one[0]]
                for one in out.attentions
            ]
        )
    assert len(found.states) == 4
    assert len(found.maps) == 3
    for layer, state in enumerate(found.states):
        assert np.asarray(state) == pytest.approx(np.concatenate([row[layer] for row in states]), abs=2e-5)
    for block, one in enumerate(found.maps):
        expected = np.concatenate([np.array(row[block]).reshape(2, -1) for row in maps], axis=1)
        assert np.asarray(one) == pytest.approx(expected, abs=2e-5)
    place = 0
    for units in found.num_units:
        lines = found.maps[0][:, place : place + units**2].reshape(2, units, units)
        assert lines.sum(axis=2) == pytest.approx(1, abs=1e-5)
        place += units**2


def test_little_memory_gives_the_same_numbers(tmp_path):
    model, wanted = model_of("bert"), wanted_all()
    at_once = capture(model, wanted, tmp_path / "a")
    one_by_one = capture(model, wanted, tmp_path / "b", memory_mb=0.05)
    for x, y in zip([*at_once.states, *at_once.maps], [*one_by_one.states, *one_by_one.maps], strict=True):
        assert np.asarray(x) == pytest.approx(np.asarray(y), abs=2e-5)


def test_too_little_memory_for_a_row_is_said_first(tmp_path):
    with pytest.raises(SettingError, match="needs"):
        capture(model_of("bert"), wanted_all(), tmp_path, memory_mb=0.001)


def test_a_full_disk_is_an_error_before_anything_is_written_to_it(tmp_path, monkeypatch):
    def full(descriptor, start, size):
        assert size > 100
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(RunError, match=r"no place for .* MB.*No space left on device.*TMPDIR"):
        capture(model_of("bert"), wanted_all(), tmp_path)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    model = model_of("bert")
    torch.nn.init.constant_(model.bert.encoder.layer[1].output.dense.bias, float("nan"))
    with pytest.raises(ArtifactError, match="not finite"):
        capture(model, wanted_all(), tmp_path)
