"""Bits in the loss: prices, gradients, and what a training makes of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from multipress.checkpoint import stored_tensors
from multipress.errors import SettingError
from multipress.methods import Context, Step
from multipress.methods.quantization import Quantization
from multipress.methods.quantization.grid import fake_quantize_learned, learned_scale
from multipress.methods.quantization.rate import (
    coarser_steps,
    coded_bits,
    codes_at_rate,
    first_log_step,
    price_for_rate,
    price_of,
)
from multipress.models.used_rows import UsedRows
from multipress.packing.packet import encode, entropy_bound_bytes

matrices = arrays(np.float32, (5, 9), elements=st.floats(-4, 4, width=32))


@given(values=matrices, one_step=st.booleans())
def test_bits_are_never_fewer_than_the_entropy_of_the_integers_that_are_stored(values, one_step):
    weight = torch.from_numpy(values)
    log_step = torch.full((1 if one_step else 5, 1), math.log(0.5))
    codes = np.clip(np.rint(values / np.float32(0.5)), -127, 127).astype(np.int8)
    assert coded_bits(weight, log_step, 8).item() >= 8 * entropy_bound_bytes(codes) - 1e-2


def test_bits_are_the_entropy_where_integers_fall_off_geometrically():
    random = np.random.default_rng(0)
    sizes = random.geometric(0.4, 200_000) * random.choice([-1, 1], 200_000) * (random.random(200_000) < 0.3)
    found = coded_bits(torch.tensor(sizes, dtype=torch.float32).reshape(400, 500), torch.zeros(1, 1), 8).item()
    assert found == pytest.approx(8 * entropy_bound_bytes(sizes.astype(np.int8)), rel=1e-3)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_gradient_is_the_price_between_two_integers(bits):
    """Against float64 loops: each weight's price on the line between its two integers, the prices held."""
    torch.manual_seed(3)
    weight = torch.randn(4, 30)
    weight[1, :5] = 0  # as pruning leaves it
    weight.requires_grad_()
    log_step = torch.full((4, 1), math.log(0.6), requires_grad=True)
    (2 * coded_bits(weight, log_step, bits)).backward()
    limit = 2 ** (bits - 1) - 1
    scale = learned_scale(log_step.detach()).double().numpy()
    ratio = np.clip(weight.detach().double().numpy() / scale, -limit, limit)
    codes = np.rint(ratio).astype(int)
    others = [abs(code) for code in codes.flatten() if code]
    share, left = len(others) / 120, 1 - 1 / max(sum(others) / len(others), 1 + 1 / 120)
    price = {0: -math.log2(1 - share)}
    price |= {k: -math.log2(share / 2 * (1 - left) * left ** (k - 1)) for k in range(1, limit + 1)}
    expected, of_steps = np.zeros((4, 30)), np.zeros((4, 1))
    for index in np.ndindex(4, 30):
        below = min(math.floor(abs(ratio[index])), limit - 1)
        slope = max(0, price[below + 1] - price[below])
        expected[index] = 2 * slope * np.sign(ratio[index]) / scale[index[0], 0]
        of_steps[index[0], 0] -= 2 * slope * abs(ratio[index])
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(log_step.grad.numpy(), of_steps, rtol=1e-4)


def test_one_step_for_all_rows_gets_the_gradients_of_all():
    torch.manual_seed(1)
    weight, upstream = torch.randn(6, 20), torch.randn(6, 20)
    by_row = torch.full((6, 1), math.log(0.5), requires_grad=True)
    single = torch.full((1, 1), math.log(0.5), requires_grad=True)
    for steps in (by_row, single):
        (fake_quantize_learned(weight, steps, 8, plain_gradient=True) * upstream).sum().backward()
        coded_bits(weight, steps, 8).backward()
    torch.testing.assert_close(single.grad.item(), by_row.grad.sum().item(), rtol=1e-4, atol=1e-4)


def test_a_descent_on_bits_alone_brings_them_down_and_never_breaks():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(50, 40) * 0.05)
    log_step = nn.Parameter(first_log_step(weight.detach(), "row"))
    optimizer = torch.optim.Adam([{"params": [weight], "lr": 1e-3}, {"params": [log_step], "lr": 1e-2}])
    first = coded_bits(weight, log_step, 8).item()
    for _ in range(300):
        optimizer.zero_grad()
        coded_bits(weight, log_step, 8).backward()
        optimizer.step()
    last = coded_bits(weight, log_step, 8).item()
    assert 3.5 < first / weight.numel() < 4.5
    assert last < 0.1 * first
    assert torch.isfinite(weight).all()
    assert torch.isfinite(log_step).all()


@pytest.mark.parametrize("codes", [torch.zeros(3, 4), torch.ones(3, 4), torch.full((1, 1), 127.0), -torch.eye(5)])
def test_prices_are_finite_and_never_fall_away_from_zero(codes):
    zero, first, further = price_of(codes.numel(), codes.count_nonzero(), codes.abs().sum())
    assert zero >= 0
    assert first >= 0
    assert further >= 0
    assert torch.isfinite(torch.stack([zero, first, further])).all()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(30, 16)
        self.first = nn.Linear(16, 24)
        self.second = nn.Linear(24, 2)
        self.again = nn.Linear(16, 24)
        self.again.weight = self.first.weight

    def forward(self, ids):
        return self.second(torch.tanh(self.first(self.embedding(ids)) + self.again(self.embedding(ids))))


def loss_of(method, model, progress):
    step = Step(model, torch.arange(2), None, torch.zeros(2, 2), progress)
    return method.compute_loss(torch.zeros(()), step).item()


def test_the_loss_is_the_mean_bits_of_a_weight_each_weight_once():
    model = Pair()
    method = Quantization(rate_weight=0.3)
    method.prepare(model, Context())
    weights = {
        name: module.parametrizations.weight.original
        for name, module in (("first", model.first), ("second", model.second))
    } | {"embedding": model.embedding.weight}
    bits = sum(coded_bits(w.detach(), first_log_step(w.detach(), "row"), 8).item() for w in weights.values())
    mean = bits / sum(w.numel() for w in weights.values())
    # Its weight rises over half the training.
    assert loss_of(method, model, 1.0) == pytest.approx(0.3 * mean, rel=1e-3)
    assert loss_of(method, model, 0.25) == pytest.approx(0.15 * mean, rel=1e-3)
    assert loss_of(method, model, 0.0) == 0


@pytest.mark.parametrize("steps", ["row", "tensor"])
def test_a_bit_of_a_word_costs_what_it_costs_in_the_file(steps):
    """Ten of thirty words are trained, the others take as many bits: a trained word's bit is stored three times."""
    model = Pair()
    method = Quantization(rate_weight=0.3, steps=steps)
    method.prepare(model, Context())
    used = UsedRows(model.embedding, torch.arange(10))
    layers = [module.parametrizations.weight.original for module in (model.first, model.second)]
    table = model.embedding.weight.detach()
    sizes = [w.numel() for w in (table, *layers)]
    # Each part alone; where a tensor has one step, that of the table was set by all its rows.
    rows = used.rows.detach().clone().requires_grad_()
    step = first_log_step(table, steps)
    of_rows = coded_bits(rows, step[:10], 8)
    of_layers = [coded_bits(w, first_log_step(w.detach(), steps), 8) for w in layers]
    mean = (3 * of_rows + sum(of_layers)) / sum(sizes)
    loss = method.compute_loss(torch.zeros(()), Step(model, torch.arange(2), None, torch.zeros(2, 2), 1.0))
    assert loss.item() == pytest.approx(0.3 * mean.item(), rel=1e-3)
    loss.backward()
    (wanted,) = torch.autograd.grad(0.3 * mean, rows)
    torch.testing.assert_close(used.rows.grad, wanted, rtol=1e-3, atol=1e-9)
    used.remove()


def learn_parity(method, model, num_steps):
    """Train on whether three numbers have an even sum, as the loop does; returns the inputs."""
    groups = method.parameter_groups(model)
    known = {id(p) for group in groups for p in group["params"]}
    optimizer = torch.optim.Adam([{"params": [p for p in model.parameters() if id(p) not in known]}, *groups], 5e-3)
    ids = torch.randint(0, 30, (64, 3), generator=torch.Generator().manual_seed(0))
    labels = (ids.sum(1) % 2).long()
    for number in range(num_steps):
        logits = model(ids).mean(1)
        loss = nn.functional.cross_entropy(logits, labels)
        step = Step(model, torch.arange(64), labels, logits, number / num_steps)
        optimizer.zero_grad()
        method.compute_loss(loss, step).backward()
        optimizer.step()
        method.on_step_end(model, (number + 1) / num_steps)
    return ids


@pytest.mark.parametrize("steps", ["row", "tensor"])
def test_what_is_stored_is_what_was_trained_with_and_smaller(steps):
    """The same few steps with and without bits in the loss; stored bytes by the real packer."""
    sizes = {}
    for rate_weight in (0.0, 0.5):
        model = Pair()
        method = Quantization(rate_weight=rate_weight, learned_step=True, steps=steps, step_learning_rate=0.02)
        method.prepare(model, Context())
        ids = learn_parity(method, model, 120)
        trained_with = model(ids).detach()
        method.convert(model)
        assert torch.equal(model(ids), trained_with)
        assert "price_of_bits" not in dict(model.named_buffers())
        tensors, aliases = stored_tensors(model)
        assert aliases == {"again.weight": "first.weight"}
        scales = {name: t.scale.shape for name, t in tensors.items() if t.scale is not None}
        assert scales["embedding.weight"] == ((30,) if steps == "row" else (1,))
        sizes[rate_weight] = sum(len(encode(t.values)) for t in tensors.values() if t.scale is not None)
    assert sizes[0.5] < 0.7 * sizes[0.0]


def test_settings_that_cannot_be():
    with pytest.raises(SettingError, match="rate_weight is -1"):
        Quantization(rate_weight=-1.0)
    with pytest.raises(SettingError, match="needs learned_step, rate or rate_weight"):
        Quantization(steps="tensor")
    with pytest.raises(SettingError, match=r"rate is 0\.0"):
        Quantization(rate=0.0)
    with pytest.raises(SettingError, match=r"rate is 8\.5"):
        Quantization(rate=8.5)
    for settings in ({"bits": 4}, {"embedding_bits": 3}):
        with pytest.raises(SettingError, match="leave bits and embedding_bits out"):
            Quantization(rate=1.0, **settings)
    with pytest.raises(SettingError, match="give one"):
        Quantization(rate=1.0, rate_weight=0.1)


@pytest.mark.parametrize("rate", [2.0, 1.0])
def test_a_rate_that_is_asked_for_is_met(rate):
    torch.manual_seed(0)
    model = Pair()
    method = Quantization(rate=rate, steps="tensor")
    method.prepare(model, Context(num_steps=400))
    learn_parity(method, model, 400)
    bits = method._mean_bits()
    assert bits.item() == pytest.approx(rate, rel=0.15)  # a real training has more steps, and a rate that falls
    method.convert(model)
    assert all(name.endswith(("weight_codes", "weight_scale")) for name, _ in model.named_buffers())
    codes = [tensor.values for tensor in stored_tensors(model)[0].values() if tensor.scale is not None]
    stored = sum(8 * entropy_bound_bytes(values) for values in codes) / sum(values.size for values in codes)
    assert 0.7 * rate < stored < bits.item() * 1.01  # few integers fit no distribution


def test_the_price_rises_above_the_line_and_falls_below_it():
    """The line falls by equal factors from the first bits to the rate."""
    for progress, wanted in ((0.0, 4.0), (0.5, 2.0), (1.0, 1.0)):
        prices = {
            bits: price_for_rate(torch.tensor(0.3), torch.tensor(bits), torch.tensor(4.0), 1.0, progress)
            for bits in (0.8 * wanted, wanted, 1.25 * wanted)
        }
        (low, low_lasting), (same, same_lasting), (high, high_lasting) = prices.values()
        assert low < low_lasting < same == pytest.approx(0.3) == same_lasting < high_lasting < high


def entropy_of(codes):
    return 8 * entropy_bound_bytes(codes.numpy()) / codes.numel()


@given(values=matrices, share=st.floats(0.05, 1.2))
def test_integers_at_a_rate_are_the_plain_ones_without_the_smallest_weights(values, share):
    rows, scale = torch.from_numpy(values), torch.full((5, 1), 0.5)
    plain = (rows / scale).round().clamp(-7, 7).to(torch.int8)
    rate = share * entropy_of(plain)
    codes = codes_at_rate(rows / scale, plain, rate)
    assert entropy_of(codes) <= rate + 1e-6
    kept = codes != 0
    assert torch.equal(codes[kept], plain[kept])
    if kept.any() and (dropped := (plain != 0) & ~kept).any():
        assert (rows / scale)[dropped].abs().max() < (rows / scale)[kept].abs().min()


def test_the_threshold_is_the_lowest_that_will_do():
    """Against a look at every threshold that there is."""
    rows = torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([[0.6]])
    plain = (rows / scale).round().to(torch.int8)
    for rate in (1.5, 0.8, 0.2):
        sizes = (rows / scale).abs()
        best = next(t for t in sizes.flatten().sort().values if t >= 0.5 and entropy_of(plain * (sizes >= t)) <= rate)
        found = codes_at_rate(rows / scale, plain, rate)
        assert abs((plain * (sizes >= best) != 0).sum() - (found != 0).sum()) <= 0.01 * rows.numel()


@pytest.mark.parametrize("steps", ["row", "tensor"])
def test_words_that_no_row_trains_take_as_many_bits_as_the_others(steps):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(400, 32), nn.Linear(32, 2))
    model[0].weight.data.mul_(torch.linspace(0.5, 2, 400).unsqueeze(1))  # common words are longer
    before = model[0].weight.detach().clone()
    method = Quantization(rate_weight=0.1, steps=steps)
    method.prepare(model, Context())
    used = UsedRows(model[0], torch.arange(0, 100))
    with torch.no_grad():
        used.rows.mul_((torch.rand_like(used.rows) < 0.4).float())  # what bits in the loss do to them
    used.write()
    method.on_step_end(model, 1.0)
    used.remove()
    method.convert(model)
    codes = model[0].weight_codes
    trained, others = entropy_of(codes[:100]), entropy_of(codes[100:])
    assert others <= trained
    assert others == pytest.approx(trained, rel=0.03)
    # Close to what they were: of the bits that there are, the large weights get them.
    kept = codes[100:] != 0
    assert before[100:][kept].abs().mean() > 1.5 * before[100:][~kept].abs().mean()


def of_two_spreads():
    """Weights in steps: of many steps each, and of few."""
    return [torch.randn(60, 50, generator=torch.Generator().manual_seed(n)) * s for n, s in ((0, 2.0), (1, 0.3))]


def mean_bits(parts, factor, stored):
    bits = [entropy_of((part / factor).round().to(torch.int8)) for part in parts]
    return sum(own * num for own, num in zip(bits, stored, strict=True)) / sum(stored)


@pytest.mark.parametrize("rate", [1.5, 0.8, 0.2])
@pytest.mark.parametrize("stored", [[3000, 3000], [300, 3000], [3000, 30]])
def test_steps_grow_as_little_as_the_rate_needs(stored, rate):
    """Against a look at every factor in turn; the mean counts the weights that will be stored."""
    parts = of_two_spreads()
    best = next(f for f in (1.002**n for n in range(4000)) if mean_bits(parts, f, stored) <= rate)
    found = coarser_steps(parts, rate, stored)
    assert found == pytest.approx(best, rel=0.015)
    assert mean_bits(parts, found, stored) == pytest.approx(mean_bits(parts, best, stored), abs=0.02)


def test_steps_that_suffice_stay_as_they_are():
    parts = of_two_spreads()
    assert coarser_steps(parts, mean_bits(parts, 1.0, [1, 1]) + 0.01, [1, 1]) == 1
    assert coarser_steps([torch.zeros(3, 4)], 0.1, [12]) == 1


def test_a_model_that_was_not_trained_is_stored_at_the_rate():
    """So that its size is known before the training."""
    torch.manual_seed(0)
    for rate in (3.0, 0.7):
        model = Pair()
        method = Quantization(rate=rate)
        method.prepare(model, Context())
        method.on_step_end(model, 1.0)
        method.convert(model)
        codes = [t.values for t in stored_tensors(model)[0].values() if t.scale is not None]
        bits = sum(8 * entropy_bound_bytes(values) for values in codes) / sum(values.size for values in codes)
        assert 0.9 * rate < bits <= rate
