"""Quantization: the grid, its gradients, learned steps, and what is stored."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, optimize, stats
from torch import nn

from multipress.errors import ArtifactError, SettingError
from multipress.methods import Context
from multipress.methods.quantization import Quantization, QuantizedWeight, quantize_rows, row_scale
from multipress.methods.quantization.activations import (
    activation_scales,
    quantize_activations,
    round_by_layer,
)
from multipress.methods.quantization.grid import (
    BEST_STEP,
    fake_quantize,
    fake_quantize_learned,
    largest_code,
    learned_scale,
    quantize_groups,
)

BITS = (8, 6, 4, 3, 2)
matrices = arrays(np.float32, (3, 7), elements=st.floats(-4, 4, width=32))


@pytest.mark.parametrize("bits", BITS)
@given(values=matrices)
def test_codes_times_scale_are_what_the_training_saw_bit_for_bit(bits, values):
    weight = torch.from_numpy(values)
    codes, scale = quantize_rows(weight, bits)
    seen = fake_quantize(weight, bits).numpy()
    stored = codes.numpy().astype(np.float32) * scale.numpy().astype(np.float32)[:, None]
    assert np.array_equal(stored, seen)


@pytest.mark.parametrize("bits", BITS)
@given(values=matrices)
def test_codes_stay_on_the_grid_and_zero_stays_zero(bits, values):
    weight = torch.from_numpy(values)
    weight[1, 2] = 0.0
    codes, scale = quantize_rows(weight, bits)
    assert codes.dtype == torch.int8
    assert scale.dtype == torch.float16
    assert codes.abs().max() <= largest_code(bits)
    assert (codes[weight == 0] == 0).all()
    assert torch.isfinite(fake_quantize(weight, bits)).all()


@pytest.mark.parametrize("bits", BITS)
@given(values=arrays(np.float32, (3, 12), elements=st.floats(-4, 4, width=32)))
def test_each_group_of_a_row_is_rounded_as_a_row_of_its_own(bits, values):
    weight = torch.from_numpy(values)
    codes, scale = quantize_groups(weight, bits, 4)
    for row in range(3):
        for group in range(3):
            own = quantize_rows(weight[row : row + 1, 4 * group : 4 * group + 4], bits)
            assert torch.equal(codes[row, 4 * group : 4 * group + 4], own.codes[0])
            assert scale[row, group] == own.scale[0]
    assert torch.equal(fake_quantize(weight, bits, 4), QuantizedWeight(codes, scale).dense())


@pytest.mark.parametrize("group", [0, 5, 12])
def test_a_row_that_a_group_does_not_divide_keeps_one_scale(group):
    weight = torch.randn(3, 12)
    codes, scale = quantize_groups(weight, 4, group)
    assert scale.shape == (3,)
    assert torch.equal(codes, quantize_rows(weight, 4).codes)
    assert torch.equal(fake_quantize(weight, 4, group), fake_quantize(weight, 4))


@pytest.mark.parametrize("other", [{"learned_step": True}, {"rate": 1.0}, {"rate_weight": 0.1}])
def test_groups_have_scales_that_follow_the_weights(other):
    with pytest.raises(SettingError, match="follow the weights"):
        Quantization(group=16, **other)
    with pytest.raises(SettingError, match="group is 7"):
        Quantization(group=7)


@pytest.mark.parametrize("bits", [8, 6])
@given(values=matrices)
def test_with_many_bits_no_weight_is_off_by_more_than_half_a_step(bits, values):
    weight = torch.from_numpy(values)
    scale = row_scale(weight, bits)
    # Rounding the scale to 16 bits may cut the largest weight by a thousandth of itself, and where the scale is
    # below the normal numbers of 16 bits by half of the smallest of them for each code.
    slack = weight.abs().amax(-1, keepdim=True) * 2**-10 + largest_code(bits) * 2**-25
    assert ((fake_quantize(weight, bits) - weight).abs() <= scale / 2 + slack + 1e-6).all()


@pytest.mark.parametrize("bits", sorted(BEST_STEP))
def test_the_best_step_minimizes_the_error_on_a_normal_distribution(bits):
    limit = largest_code(bits)

    def error(step):
        total = 0.0
        for code in range(-limit, limit + 1):
            low = -math.inf if code == -limit else (code - 0.5) * step
            high = math.inf if code == limit else (code + 0.5) * step
            total += integrate.quad(lambda x, c=code: (x - c * step) ** 2 * stats.norm.pdf(x), low, high)[0]
        return total

    best = optimize.minimize_scalar(error, bounds=(0.05, 2.5), method="bounded").x
    assert BEST_STEP[bits] == pytest.approx(best, rel=2e-3)


def test_the_spread_of_low_bits_is_that_of_the_weights_left():
    torch.manual_seed(0)
    weight = torch.randn(1, 4000)
    pruned = weight * (torch.rand_like(weight) < 0.5)
    assert row_scale(pruned, 2).item() == pytest.approx(row_scale(weight, 2).item(), rel=0.05)


def test_the_gradient_passes_straight_through():
    weight = torch.randn(4, 6, requires_grad=True)
    upstream = torch.randn(4, 6)
    fake_quantize(weight, 4).backward(upstream)
    assert torch.equal(weight.grad, upstream)


@pytest.mark.parametrize("bits", [4, 2])
def test_the_learned_step_has_the_gradient_of_the_published_formula(bits):
    torch.manual_seed(1)
    weight = torch.randn(3, 50, requires_grad=True)
    log_step = torch.full((3, 1), math.log(0.4), requires_grad=True)
    upstream = torch.randn(3, 50)
    fake_quantize_learned(weight, log_step, bits).backward(upstream)
    step, limit = learned_scale(log_step.detach()).double().numpy(), largest_code(bits)
    expected = np.zeros(3)
    for row in range(3):
        for column in range(50):
            ratio = weight[row, column].item() / step[row, 0]
            slope = round(ratio) - ratio if abs(ratio) <= limit else math.copysign(limit, ratio)
            expected[row] += upstream[row, column].item() * slope * step[row, 0] / math.sqrt(50 * limit)
    np.testing.assert_allclose(log_step.grad[:, 0].numpy(), expected, rtol=1e-4)
    inside = np.abs(weight.detach().numpy() / step) <= limit
    np.testing.assert_array_equal(weight.grad.numpy(), np.where(inside, upstream.numpy(), 0))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 8)
        self.linear = nn.Linear(8, 5)
        self.norm = nn.LayerNorm(5)

    def forward(self, ids):
        return self.norm(self.linear(self.embedding(ids)))


@pytest.mark.parametrize("learned", [False, True])
def test_rounding_looked_up_rows_equals_rounding_the_table(learned):
    ids = torch.tensor([[1, 5, 5], [0, 19, 3]])
    model = Small()
    method = Quantization(bits=4, learned_step=learned)
    method.prepare(model, Context())
    trained_with = model.embedding(ids)
    method.convert(model)
    assert torch.equal(model.embedding(ids), trained_with)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_embeddings_linears_and_nothing_else_are_stored_as_integers(bits, learned):
    model = Small()
    method = Quantization(bits=bits, embedding_bits=8, learned_step=learned)
    method.convert(method.prepare(model, Context()))
    assert model.linear.weight_bits == bits
    assert model.embedding.weight_bits == 8
    assert not hasattr(model.norm, "weight_codes")
    for module in (model.linear, model.embedding):
        expected = module.weight_codes.float() * module.weight_scale.float()[:, None]
        assert torch.equal(module.weight, expected)


def test_learned_steps_are_optimized_with_their_own_rate_and_start_from_the_weights():
    model = Small()
    method = Quantization(bits=4, learned_step=True, step_learning_rate=0.01)
    method.prepare(model, Context())
    (group,) = method.parameter_groups(model)
    assert group["lr"] == 0.01
    assert {tuple(p.shape) for p in group["params"]} == {(20, 1), (5, 1)}
    torch.testing.assert_close(group["params"][0].exp(), row_scale(Small().embedding.weight, 4))


def test_rounding_begins_at_start():
    model = Small()
    method = Quantization(bits=2, start=0.5)
    method.prepare(model, Context())
    ids = torch.arange(20)
    assert torch.equal(model(ids), Small()(ids))
    method.on_step_end(model, 0.4)
    assert torch.equal(model(ids), Small()(ids))
    method.on_step_end(model, 0.5)
    assert not torch.equal(model(ids), Small()(ids))


def test_activations_are_rounded_token_by_token():
    torch.manual_seed(0)
    linear = quantize_activations(nn.Sequential(nn.Linear(16, 4)), 8)
    values = torch.randn(6, 16)
    with torch.no_grad():
        together = linear(values)
        alone = torch.cat([linear(row[None]) for row in values])
        loud = linear(torch.cat([values, values * 1000]))[:6]
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)
    torch.testing.assert_close(loud, together, atol=1e-6, rtol=0)
    # A reference in float64.
    scale = np.abs(values.numpy()).max(1, keepdims=True) / 127
    rounded = np.round(values.numpy() / scale) * scale
    expected = rounded @ linear[0].weight.detach().numpy().T + linear[0].bias.detach().numpy()
    np.testing.assert_allclose(together.numpy(), expected, atol=1e-5)


def test_rounded_activations_pass_their_gradient():
    linear = quantize_activations(nn.Sequential(nn.Linear(16, 4)), 8)
    values = torch.randn(2, 16, requires_grad=True)
    linear(values).sum().backward()
    torch.testing.assert_close(values.grad, linear[0].weight.sum(0).expand(2, 16))


def test_a_fixed_scale_follows_the_largest_values_of_the_training_and_stays_after_it():
    torch.manual_seed(0)
    model = round_by_layer(nn.Sequential(nn.Linear(16, 4)), 8)
    batches = [torch.randn(3, 5, 16) * size for size in (1, 2, 0.5, 4)]
    expected = 0.0
    for batch in batches:
        model(batch).sum().backward()
        seen = float(batch.abs().max()) / 127
        expected = seen if expected == 0 else 0.99 * expected + 0.01 * seen
    assert activation_scales(model) == {"0": pytest.approx(expected, rel=1e-6)}
    before = activation_scales(model)
    model.eval()(batches[3]).sum().backward()
    with torch.no_grad():
        model.train()(batches[3])  # what is only looked at teaches nothing
    assert activation_scales(model) == before
    # The number that is stored gives the same 32 bits.
    again = quantize_activations(nn.Sequential(nn.Linear(16, 4)), 8, before)
    assert torch.equal(again[0].input_scale, model[0].input_scale)


def test_with_a_fixed_scale_values_are_rounded_within_a_byte_and_those_beyond_learn_nothing():
    model = quantize_activations(nn.Sequential(nn.Linear(16, 4)), 8, {"0": 0.01}).eval()
    values = torch.linspace(-2, 2, 6 * 16).reshape(6, 16).requires_grad_()
    found = model(values)
    # A reference in float64: an unsigned byte with its zero at 128.
    rounded = 0.01 * (np.clip(np.rint(values.detach().double().numpy() / 0.01) + 128, 0, 255) - 128)
    expected = rounded @ model[0].weight.detach().numpy().T + model[0].bias.detach().numpy()
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
    found.sum().backward()
    inside = (values.detach() >= -1.28) & (values.detach() <= 1.27)
    assert 0 < inside.sum() < inside.numel()
    torch.testing.assert_close(values.grad, model[0].weight.sum(0) * inside)


def test_before_a_layer_has_seen_a_batch_nothing_is_rounded():
    plain = nn.Sequential(nn.Linear(16, 4))
    rounding = round_by_layer(nn.Sequential(nn.Linear(16, 4)), 8)
    rounding.load_state_dict(plain.state_dict() | {"0.input_scale": torch.zeros(())})
    values = torch.randn(3, 16)
    assert torch.equal(rounding.eval()(values), plain(values))
    stored = quantize_activations(nn.Sequential(nn.Linear(16, 4)), 8, activation_scales(rounding))
    stored.load_state_dict(plain.state_dict())
    assert torch.equal(stored.eval()(values), plain(values))


@pytest.mark.parametrize(
    "scales",
    [{}, {"0": 0.1}, [1, 2], 3, *({"0": 0.1, "1": wrong} for wrong in (-0.1, float("nan"), "1", 10**400, 1e300, True))],
)
def test_scales_that_are_not_those_of_the_layers_are_refused(scales):
    with pytest.raises(ArtifactError, match="scales of activations are not those of the linear layers: "):
        quantize_activations(nn.Sequential(nn.Linear(16, 4), nn.Linear(4, 2)), 8, scales)


@pytest.mark.parametrize("bits", ["8", 5000, 4, True, 8.0])
@pytest.mark.parametrize("scales", [None, {"0": 0.1}])
def test_activations_of_other_bits_are_refused(bits, scales):
    with pytest.raises(ArtifactError, match="activations have 8 bits"):
        quantize_activations(nn.Sequential(nn.Linear(16, 4)), bits, scales)


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 5},
        {"activation_scale": "static"},
        {"activation_bits": 8, "activation_scale": "tensor"},
        {"bits": 16},
        {"embedding_bits": 1},
        {"activation_bits": 4},
        {"start": 1.0},
        {"step_learning_rate": 0.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingError):
        Quantization(**settings)
