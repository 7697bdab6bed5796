"""Quantization as a method: where the rounding is attached, and what is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from multipress.errors import SettingError
from multipress.methods.base import Context, Method, Stage, Step, check_choice, check_share, num_staying, staying
from multipress.methods.quantization.activations import round_by_layer, round_by_token
from multipress.methods.quantization.grid import (
    QuantizedWeight,
    fake_quantize,
    fake_quantize_learned,
    in_groups,
    learned_scale,
    quantize_groups,
    quantize_rows,
    row_scale,
)
from multipress.methods.quantization.rate import (
    FIRST_PRICE,
    coarser_steps,
    coded_bits,
    codes_at_rate,
    entropy_bits,
    first_log_step,
    price_for_rate,
    reaching_rate,
)
from multipress.models.used_rows import trained_rows

__all__ = ["Quantization", "WeightQuantizer"]

RAMP = 0.5  # share of the rounded training over which the weight of the bits rises, or the bits fall to the rate
DEFAULT_STEP_RATE, HIGHEST_STEP_RATE = 1e-3, 1e-1


class WeightQuantizer(nn.Module):
    """Rounds a weight, or rows of it, to its grid.

    Args:
        bits: 2 to 8.
        log_step: (R, 1), or (1, 1) for one step of all rows: logarithm of the scales to learn; None: scales follow the
            weights.
        active: Whether rounding has begun.
        coded: Whether bits are a part of the loss, so that the gradient of a step stays as it is.
        group: How many weights of a row share a scale that follows them; 0: all.
    """

    def __init__(self, bits: int, log_step: Tensor | None, active: bool, coded: bool = False, group: int = 0) -> None:
        super().__init__()
        self.bits = bits
        self.group = group
        self.coded = coded
        self.log_step = None if log_step is None else nn.Parameter(log_step)
        self.register_buffer("active", torch.tensor(active))

    def forward(self, weight: Tensor) -> Tensor:
        """(R, D) -> (R, D)."""
        return self.round_rows(weight, self.log_step)

    def round_rows(self, weight: Tensor, log_step: Tensor | None) -> Tensor:
        """Rounds the rows given, (..., D), with their own learned steps, (..., 1), if any."""
        if not self.active:
            return weight
        if log_step is None:
            return fake_quantize(weight, self.bits, self.group)
        return fake_quantize_learned(weight, log_step, self.bits, plain_gradient=self.coded)

    def steps_of(self, ids: Tensor) -> Tensor | None:
        """The learned steps of these rows."""
        return self.log_step if self.log_step is None or len(self.log_step) == 1 else self.log_step[ids]

    def scale(self) -> Tensor | None:
        """(R, 1) learned scales; None if they follow the weights."""
        return None if self.log_step is None else learned_scale(self.log_step.detach())


def _round_looked_up_rows(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Rounds the rows that an embedding returned: the same as rounding its whole table, at a fraction of the cost."""
    quantizer = module.weight_quantizer
    return quantizer.round_rows(output, quantizer.steps_of(inputs[0]))


@dataclass
class Quantization(Method):
    """Quantization-aware training; see the package's card."""

    name: ClassVar[str] = "quantization"
    stage: ClassVar[Stage] = Stage.PRECISION
    version: ClassVar[int] = 6  # a rate is that of the rows that will be stored

    bits: int = 8
    embedding_bits: int | None = None
    activation_bits: int | None = None
    activation_scale: str = "dynamic"
    learned_step: bool = False
    group: int = 0
    start: float = 0.0
    step_learning_rate: float | None = None
    steps: str = "row"
    rate: float | None = None
    rate_weight: float = 0.0

    def __post_init__(self) -> None:
        check_choice("quantization", "bits", self.bits, (8, 6, 4, 3, 2))
        check_choice("quantization", "embedding_bits", self.embedding_bits, (None, 8, 6, 4, 3, 2))
        check_choice("quantization", "activation_bits", self.activation_bits, (None, 8))
        check_choice("quantization", "activation_scale", self.activation_scale, ("dynamic", "static"))
        if self.activation_scale == "static" and self.activation_bits is None:
            raise SettingError("quantization.activation_scale is 'static', which needs activation_bits=8.")
        check_share("quantization", "start", self.start)
        if self.start == 1:
            raise SettingError("quantization.start is 1, so the training would never see the rounding.")
        if self.step_learning_rate is not None and not 0 < self.step_learning_rate < 1:
            raise SettingError(f"quantization.step_learning_rate is {self.step_learning_rate}, not between 0 and 1.")
        check_choice("quantization", "steps", self.steps, ("row", "tensor"))
        if not 0 <= self.rate_weight < math.inf:
            raise SettingError(f"quantization.rate_weight is {self.rate_weight}, but must be at least 0.")
        if self._is_coded and (self.bits, self.embedding_bits or 8) != (8, 8):
            # Few integers around zero would cut most weights off, and those would not learn.
            raise SettingError(
                "quantization.rate and rate_weight choose the bits themselves: leave bits and embedding_bits out."
            )
        if self.rate is not None and not 0 < self.rate <= self.bits:
            raise SettingError(f"quantization.rate is {self.rate}, but must be above 0 and at most {self.bits}.")
        if self.rate is not None and self.rate_weight:
            raise SettingError("quantization has a rate and a rate_weight. The one sets the other: give one.")
        if self.steps == "tensor" and not (self.learned_step or self._is_coded):
            raise SettingError("quantization.steps is 'tensor', which needs learned_step, rate or rate_weight.")
        check_choice("quantization", "group", self.group, (0, 16, 32, 64, 128))
        if self.group and (self.learned_step or self._is_coded):
            raise SettingError("quantization.group is for scales that follow the weights: no learned_step, no rate.")
        self._quantizers: dict[str, tuple[nn.Module, nn.Parameter, WeightQuantizer]] = {}
        self._trained: dict[str, Tensor | None] = {}

    @property
    def _is_coded(self) -> bool:
        """Whether the bits of an entropy coder are a part of the loss."""
        return self.rate is not None or self.rate_weight > 0

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Attaches rounding to all linear layers and embeddings; changes `model` and returns it."""
        layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))}
        # Positions that are computed are no weights.
        modules = {name: module for name, module in layers.items() if isinstance(module.weight, nn.Parameter)}
        if not modules:
            raise SettingError("Quantization found no linear layer and no embedding.")
        if self.group and any(hasattr(module, "leaving_columns") for module in modules.values()):
            raise SettingError("quantization.group and structured were not tested together. Choose one.")
        if self.group and all(in_groups(m.weight, self.group).shape[-2] == 1 for m in modules.values()):
            widths = ", ".join(map(str, sorted({m.weight.shape[-1] for m in modules.values()})))
            raise SettingError(
                f"quantization.group is {self.group}, which cuts no row of this model in two: rows are {widths} wide. "
                "Take a smaller group."
            )
        shared: dict[int, WeightQuantizer] = {}
        weights = {name: (module, module.weight) for name, module in modules.items()}
        for name, (module, weight) in weights.items():
            quantizer = shared.get(id(weight)) or self._new_quantizer(module, weight)
            shared[id(weight)] = quantizer
            if isinstance(module, nn.Embedding):
                module.add_module("weight_quantizer", quantizer)
                module.register_forward_hook(_round_looked_up_rows)
            else:
                parametrize.register_parametrization(module, "weight", quantizer)
            self._quantizers[name] = (module, weight, quantizer)
        if self.activation_bits is not None:
            rounding = round_by_layer if self.activation_scale == "static" else round_by_token
            rounding(model, self.activation_bits)
        self._num_steps = context.num_steps
        if self._is_coded:
            model.register_buffer("price_of_bits", torch.tensor(self.rate_weight or FIRST_PRICE))
            model.register_buffer("first_bits", torch.zeros(()))
        return model

    def _new_quantizer(self, module: nn.Module, weight: Tensor) -> WeightQuantizer:
        bits = self.embedding_bits if isinstance(module, nn.Embedding) and self.embedding_bits else self.bits
        return WeightQuantizer(bits, self._first_log_step(weight, bits), self.start == 0, self._is_coded, self.group)

    def _first_log_step(self, weight: Tensor, bits: int) -> Tensor | None:
        """Where the learned steps of a weight begin; None if none are learned."""
        if self._is_coded:
            return first_log_step(weight.detach(), self.steps)
        if not self.learned_step:
            return None
        rows = weight.detach()
        return row_scale(rows.reshape(1, -1) if self.steps == "tensor" else rows, bits).log()

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The learned steps, with their own learning rate and no weight decay."""
        if not (self.learned_step or self._is_coded):
            return []
        steps = {id(q.log_step): q.log_step for _, _, q in self._quantizers.values()}
        learning_rate = self.step_learning_rate
        if learning_rate is None:
            learning_rate = DEFAULT_STEP_RATE
            if self.rate is not None:
                first = float(self._mean_bits().detach())
                needed = reaching_rate(first, self.rate, self._num_steps * (1 - self.start) * RAMP)
                learning_rate = min(max(learning_rate, needed), HIGHEST_STEP_RATE)
        return [{"params": list(steps.values()), "lr": learning_rate, "weight_decay": 0.0}]

    def compute_loss(self, loss: Tensor, step: Step) -> Tensor:
        """Adds the mean bits of a weight, times `rate_weight`, or times a price that lets them fall to `rate`."""
        if not self._is_coded or step.progress < self.start:
            return loss
        bits = self._mean_bits()
        ramp = min(1.0, (step.progress - self.start) / ((1 - self.start) * RAMP))
        if self.rate is None:
            return loss + self.rate_weight * ramp * bits
        model: Any = step.model
        if not model.first_bits:
            model.first_bits.copy_(bits.detach())
        price, lasting = price_for_rate(model.price_of_bits, bits.detach(), model.first_bits, self.rate, ramp)
        model.price_of_bits.copy_(lasting)
        return loss + price * bits

    def _mean_bits(self) -> Tensor:
        """Mean bits of a weight that will be stored, a scalar.

        Rows of an embedding that are not trained will have as many bits as those that are, so that a bit of a row that
        is trained counts as often as it will be stored.
        """
        seen: set[int] = set()
        bits: list[Tensor] = []
        num_stored = 0
        for module, weight, quantizer in self._quantizers.values():
            if id(weight) not in seen:
                seen.add(id(weight))
                if isinstance(module, nn.Embedding):
                    rows, ids = trained_rows(module)
                else:
                    ids, columns = staying(module)
                    rows = weight[ids][:, columns]
                if not rows.numel():  # all of it leaves
                    continue
                steps = quantizer.log_step if ids is None else quantizer.steps_of(ids)
                own = _num_stored(module, weight)
                bits.append(coded_bits(rows, steps, quantizer.bits) * (own / rows.numel()))
                num_stored += own
        return torch.stack(bits).sum() / num_stored

    def on_step_end(self, model: nn.Module, progress: float) -> None:
        """Begins the rounding when `start` is reached."""
        if self._is_coded:
            for name, (module, _, _) in self._quantizers.items():
                if isinstance(module, nn.Embedding):
                    self._trained[name] = trained_rows(module)[1]
        if progress < self.start:
            return
        for _, weight, quantizer in self._quantizers.values():
            if not quantizer.active:
                quantizer.active.fill_(True)
                if quantizer.log_step is not None:
                    # The weights have moved since `prepare`; the learned steps begin where the weights are now.
                    with torch.no_grad():
                        quantizer.log_step.copy_(self._first_log_step(weight, quantizer.bits))

    def convert(self, model: nn.Module) -> nn.Module:
        """Puts the rounded weights in place and leaves codes and scales on each module; changes `model`, returns it."""
        if self._is_coded:
            del model.price_of_bits, model.first_bits
        coded: dict[int, QuantizedWeight] = {}
        stored: dict[int, int] = {}
        for name, (module, weight, quantizer) in self._quantizers.items():
            _detach(module, weight)
            if id(weight) not in coded:
                coded[id(weight)] = _as_the_trained(weight.detach(), quantizer, self._trained.get(name))
                stored[id(weight)] = _num_stored(module, weight)
        if self.rate is not None:
            self._hold_rate(coded, stored)
        for module, weight, quantizer in self._quantizers.values():
            module.weight_bits = quantizer.bits
            module.register_buffer("weight_codes", coded[id(weight)].codes, persistent=False)
            module.register_buffer("weight_scale", coded[id(weight)].scale, persistent=False)
        # Only now, because a weight that two modules share must be coded from the same values for both.
        with torch.no_grad():
            for module, weight, _ in self._quantizers.values():
                weight.copy_(QuantizedWeight(module.weight_codes, module.weight_scale).dense())
        return model

    def _hold_rate(self, coded: dict[int, QuantizedWeight], stored: dict[int, int]) -> None:
        """Makes all steps coarser by one factor, where else there were more bits than asked for; zeros stay zeros.

        Args:
            coded: Codes and scales by the identity of the weight; changed.
            stored: How many weights of each will be stored.
        """
        weights = {id(weight): weight.detach() for _, weight, _ in self._quantizers.values()}
        rows = {id(weight): getattr(module, "stored_rows", None) for module, weight, _ in self._quantizers.values()}
        bits = {id(weight): quantizer.bits for _, weight, quantizer in self._quantizers.values()}
        kept = {key: weights[key] * (made.codes != 0) for key, made in coded.items()}
        scales = {key: made.scale.float().unsqueeze(-1) for key, made in coded.items()}
        parts = [_rows_of(kept[key] / scales[key], rows[key]) for key in coded]
        factor = coarser_steps(parts, self.rate or 0.0, list(stored.values()))
        if factor > 1:
            for key in coded:
                coded[key] = quantize_rows(kept[key], bits[key], (factor * scales[key]).half().float())


def _rows_of(values: Tensor, ids: Tensor | None) -> Tensor:
    """These rows; all if there are no ids."""
    return values if ids is None else values[ids]


def _num_stored(module: nn.Module, weight: Tensor) -> int:
    """How many of its weights will be stored."""
    if hasattr(module, "stored_rows"):
        return len(module.stored_rows) * weight.shape[1]
    return num_staying(module, weight)


def _detach(module: nn.Module, weight: nn.Parameter) -> None:
    """Takes the rounding off a module and gives it its own weight back."""
    if isinstance(module, nn.Embedding):
        for key in [key for key, hook in module._forward_hooks.items() if hook is _round_looked_up_rows]:
            del module._forward_hooks[key]
        del module.weight_quantizer
    else:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    module.weight = weight


def _as_the_trained(weight: Tensor, quantizer: WeightQuantizer, trained: Tensor | None) -> QuantizedWeight:
    """Codes and scales of a weight; rows that were not trained get steps and bits as those that were.

    Args:
        weight: (R, D).
        quantizer: Its steps.
        trained: Ids of the rows that were trained; None: all, or bits are not a part of the loss.
    """
    scale = quantizer.scale()
    if scale is None:
        return quantize_groups(weight, quantizer.bits, quantizer.group)
    if trained is None or len(trained) == len(weight):
        return quantize_rows(weight, quantizer.bits, scale)
    others = torch.ones(len(weight), dtype=torch.bool)
    others[trained] = False
    if len(scale) > 1:
        # In parts of each row's own spread, because common words are longer vectors than rare ones.
        spread = first_log_step(weight, "row")
        step = (scale[trained].log() - spread[trained]).mean()
        scale = scale.clone()
        scale[others] = learned_scale(spread[others] + step)
    codes, stored_scale = quantize_rows(weight, quantizer.bits, scale)
    parts = weight[others] / (scale[others] if len(scale) > 1 else scale)
    codes[others] = codes_at_rate(parts, codes[others], entropy_bits(codes[trained]))
    return QuantizedWeight(codes, stored_scale)
