"""Pruning: exact counts, the schedule, what is ranked, and what never comes back."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from multipress.errors import SettingError
from multipress.methods import Context
from multipress.methods.pruning import Pruning, keep_largest, target_sparsity


class Encoder(nn.Module):
    """Two linear layers where a BERT has its blocks, one elsewhere, and an embedding."""

    config = SimpleNamespace(model_type="bert")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.word_embeddings = nn.Embedding(10, 8)
        block = nn.ModuleDict({"first": nn.Linear(8, 12), "second": nn.Linear(12, 6)})
        self.bert = nn.ModuleDict({"encoder": nn.ModuleDict({"layer": nn.ModuleList([block])})})
        self.head = nn.Linear(6, 2)

    def get_input_embeddings(self):
        return self.word_embeddings

    @property
    def block(self):
        return self.bert.encoder.layer[0]

    def ranked(self):
        return [self.block["first"].weight, self.block["second"].weight]


def run(method, model=None, steps=10, learning=True):
    model = model or Encoder()
    method.prepare(model, Context(seed=3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for step in range(steps):
        hidden = model.block["second"](model.block["first"](model.word_embeddings(torch.arange(10))))
        model.head(hidden).square().sum().backward()
        if learning:
            optimizer.step()
        optimizer.zero_grad()
        method.on_step_end(model, (step + 1) / steps)
    return method.convert(model)


def test_nothing_is_pruned_only_where_that_is_asked_for():
    model = run(Pruning(sparsity=0.0, importance="none"), steps=2)
    assert model.block["first"].num_pruned == 0
    assert all(weight.count_nonzero() == weight.numel() for weight in model.ranked())
    with pytest.raises(SettingError, match="Leave pruning out"):
        Pruning(sparsity=0.0)
    with pytest.raises(SettingError, match="only 0"):
        Pruning(importance="none")


@given(
    scores=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    sparsity=st.floats(0, 1),
)
def test_keep_largest_equals_a_sort_with_ties_broken_by_position(scores, sparsity):
    keep = keep_largest(torch.tensor(scores, dtype=torch.float32), sparsity).numpy()
    order = np.argsort(np.array(scores), kind="stable")
    expected = np.ones(len(scores), dtype=bool)
    expected[order[: round(sparsity * len(scores))]] = False
    assert np.array_equal(keep, expected)


@pytest.mark.parametrize("sparsity", [0.1, 0.4, 0.6, 0.95, 1.0])
def test_global_scope_removes_the_exact_share_over_all_matrices(sparsity):
    model = run(Pruning(sparsity=sparsity))
    zeros = sum(int((weight == 0).sum()) for weight in model.ranked())
    assert zeros == round(sparsity * sum(weight.numel() for weight in model.ranked()))


@pytest.mark.parametrize("sparsity", [0.1, 0.4, 0.6])
def test_matrix_scope_removes_the_exact_share_of_each(sparsity):
    model = run(Pruning(sparsity=sparsity, scope="matrix"))
    for weight in model.ranked():
        assert int((weight == 0).sum()) == round(sparsity * weight.numel())


def test_only_the_encoder_is_pruned_by_default_and_embeddings_when_asked():
    model = run(Pruning(sparsity=0.5))
    assert torch.count_nonzero(model.head.weight) == model.head.weight.numel()
    assert torch.count_nonzero(model.word_embeddings.weight) == model.word_embeddings.weight.numel()
    model = run(Pruning(sparsity=0.5, embeddings=True))
    assert torch.count_nonzero(model.word_embeddings.weight) < model.word_embeddings.weight.numel()
    assert torch.count_nonzero(model.head.weight) == model.head.weight.numel()


def test_without_learning_the_smallest_weights_go():
    before = torch.cat([weight.detach().abs().flatten() for weight in Encoder().ranked()])
    model = run(Pruning(sparsity=0.5), learning=False)
    gone = torch.cat([(weight == 0).flatten() for weight in model.ranked()])
    assert before[gone].max() <= before[~gone].min()


def test_random_importance_removes_others_and_repeats_with_the_seed():
    by_size = run(Pruning(sparsity=0.5), learning=False)
    first, second = (run(Pruning(sparsity=0.5, importance="random"), learning=False) for _ in range(2))
    zeros = [torch.cat([(w == 0).flatten() for w in model.ranked()]) for model in (by_size, first, second)]
    assert zeros[0].sum() == zeros[1].sum()
    assert not torch.equal(zeros[0], zeros[1])
    assert torch.equal(zeros[1], zeros[2])


def test_a_removed_weight_never_comes_back():
    method = Pruning(sparsity=0.8, updates=5)
    model = Encoder()
    method.prepare(model, Context())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    gone = [torch.zeros_like(weight, dtype=torch.bool) for weight in model.ranked()]
    for step in range(20):
        hidden = model.block["second"](model.block["first"](model.word_embeddings(torch.arange(10))))
        model.head(hidden).square().sum().backward()
        optimizer.step()
        method.on_step_end(model, (step + 1) / 20)
        now = [weight == 0 for weight in model.ranked()]
        assert all((before <= after).all() for before, after in zip(gone, now, strict=True))
        gone = now
    assert sum(int(mask.sum()) for mask in gone) == round(0.8 * sum(mask.numel() for mask in gone))


def test_the_schedules_rise_from_zero_to_the_target():
    times = np.linspace(0, 1, 21)
    for schedule in ("linear", "cubic"):
        values = [target_sparsity(time, 0.6, schedule) for time in times]
        assert values[0] == 0
        assert values[-1] == pytest.approx(0.6)
        assert np.all(np.diff(values) > 0)
    assert target_sparsity(0.5, 0.6, "linear") == pytest.approx(0.3)
    assert target_sparsity(0.5, 0.6, "cubic") == pytest.approx(0.6 * (1 - 0.5**3))


def test_nothing_is_pruned_before_start_and_all_at_end():
    method = Pruning(sparsity=0.5, start=0.3, end=0.6)
    model = Encoder()
    method.prepare(model, Context())
    shares = {}
    for progress in (0.1, 0.3, 0.45, 0.6, 1.0):
        method.on_step_end(model, progress)
        shares[progress] = sum(int((w == 0).sum()) for w in model.ranked()) / sum(w.numel() for w in model.ranked())
    assert shares[0.1] == shares[0.3] == 0
    assert 0.2 < shares[0.45] < 0.3
    assert shares[0.6] == shares[1.0] == pytest.approx(0.5, abs=0.01)


def test_a_training_too_short_for_its_schedule_is_an_error():
    method = Pruning(sparsity=0.5)
    model = Encoder()
    method.prepare(model, Context())
    method.on_step_end(model, 0.4)
    with pytest.raises(SettingError, match="too short"):
        method.convert(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": 60.0},
        {"sparsity": 0.0},
        {"sparsity": -0.1},
        {"scope": "row"},
        {"start": 0.9, "end": 0.1},
        {"updates": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingError):
        Pruning(**settings)


def test_percent_is_answered_with_the_share_to_write():
    with pytest.raises(SettingError, match=r"60 %, write 0\.6"):
        Pruning(sparsity=60.0)
