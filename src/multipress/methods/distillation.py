"""Distillation: the model learns a bigger model's outputs beside the labels.

What it does:
    Adds to the loss the distance between the model's logits and a teacher's on the same rows, and between their hidden
    states. The teacher reads the training rows once; what it says of them is stored and read in each epoch.

When to use it:
    Whenever there is a better model than the one that is made small. The better the teacher, the more it helps; the
    model itself as its teacher cost points where it was measured (docs/log.md). Where no teacher is named, it is the
    largest model of the study, or for `train` the model itself; both are fine-tuned without compression first.

Settings:
    loss: `auto` (default): `kl` for classes and `mse` for a number; `kl`: divergence of the softened class
        distributions; `mse`: squared distance of the logits.
    temperature: Softens both distributions in `kl` (4.0); above 1 the small probabilities count more.
    alpha: Share of this term in the loss, 0 to 1; the labels have the rest (0.5).
    hidden: Weight of a further term, the distance of the hidden states to the teacher's (10.0; 0: none). Where rows
        are few or classes many it helps far more than the logits do.
    states: Which hidden states. `text` (default): of each layer the mean over a text's tokens, of the last one
        what the head reads, most often the first token; the teacher computes them once. `token`: each token's; the
        teacher then runs in each step.
    augment: Further rows made of each training row by replacing words, labelled by the teacher alone (0). The number of
        steps stays that of the rows without them.
    replace: Share of the words that are replaced in them (0.3).
    sequences: For a translator, whether the teacher's translations of the training rows stand in place of theirs
        (false).
    layers: Which of the teacher's blocks each block learns from, in `hidden`: `uniform` (default), spread evenly from
        bottom to top, or `last`, the teacher's top blocks.

Cost:
    Training time: under 1 % beside one pass of the teacher over the rows, or two with `hidden`. Memory and disk: the
    logits, and with `hidden` two bytes a row, layer and hidden unit of the teacher (46 MB for 10,000 rows and six
    layers of 384). With `states=token` the teacher runs in each step instead: a third of the time of training a model
    of its size.

With other methods:
    Touches no weight, so it combines with all. A translator learns from its teacher's probabilities of each next word,
    while the teacher runs in each step (`alpha`, `temperature`), or from its translations (`sequences`), or both;
    hidden states and further rows are for classifiers. It repairs part of what pruning and low bits lose.

Limits:
    A teacher that is not better than the model will be makes the model worse. The teacher must have the same labels in
    the same order, and for `states=token` the same tokenizer, as for a translator with `alpha` above 0. A teacher
    that has seen the same few rows is nearly certain of each, and its logits then teach little more than the labels do.

Source:
    Hinton et al. 2015, section 2 (`kl`, scaled by the squared temperature); Kim and Rush 2016 (translators, by words
    and by `sequences`); Ba and Caruana 2014 (`mse`); Jiao et al. 2020, TinyBERT, section 3.1 (`hidden`: embeddings and
    mapped blocks through one learned matrix where the widths differ; here of whole texts by default, one matrix for all
    blocks, which begins as a linear fit, the distance relative to the size of the teacher's states, and no term for
    attention). Movva et al. 2022 use distillation without naming loss or temperature; these defaults are ours. Their
    augmentation took synonyms from a list; `augment` takes the nearest words of the teacher's embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from multipress.errors import SettingError
from multipress.methods.base import Context, Method, Stage, Step, check_choice, check_share, later
from multipress.models.encoder import model_inputs, spread_blocks
from multipress.models.states import Capture, hidden_layers, real_tokens, text_vectors
from multipress.precision import autocast, device, route

__all__ = ["PROJECTION", "Distillation", "distillation_loss"]


@dataclass
class Distillation(Method):
    """Distillation from cached logits, and from a teacher's hidden states; see the module's card."""

    name: ClassVar[str] = "distillation"
    stage: ClassVar[Stage] = Stage.OBJECTIVE
    version: ClassVar[int] = 3  # 3: hidden states of whole texts

    loss: str = "auto"
    temperature: float = 4.0
    alpha: float = 0.5
    hidden: float = 10.0
    augment: int = 0
    replace: float = 0.3
    states: str = "text"
    layers: str = "uniform"
    sequences: bool = later(False)

    def __post_init__(self) -> None:
        check_choice("distillation", "loss", self.loss, ("auto", "kl", "mse"))
        check_choice("distillation", "states", self.states, ("text", "token"))
        check_choice("distillation", "layers", self.layers, tuple(LAYER_MAPS))
        check_share("distillation", "alpha", self.alpha)
        check_share("distillation", "replace", self.replace)
        if not 0 <= self.augment <= 20:
            raise SettingError(f"distillation.augment is {self.augment}, but must be from 0 to 20.")
        if self.hidden < 0:
            raise SettingError(f"distillation.hidden is {self.hidden}, but must be at least 0.")
        if self.alpha == 0 and self.hidden == 0 and not self.sequences:
            raise SettingError(
                "distillation.alpha is 0, so the teacher would not count. Leave distillation out instead."
            )
        if not 0 < self.temperature <= 100:
            raise SettingError(f"distillation.temperature is {self.temperature}, but must be above 0 and at most 100.")
        self._kind = self.loss
        self._teacher_logits: Tensor | None = None
        self._translator: nn.Module | None = None
        self._hidden: _HiddenStates | None = None

    def needs(self, target: str = "classes") -> frozenset[str]:
        """The teacher's logits, its hidden states of whole texts, or the teacher itself for those of each token.

        For a translator the teacher itself, or its translations.
        """
        if target == "text":
            wanted = {"teacher_model": self.alpha, "teacher_translations": float(self.sequences)}
            return frozenset(name for name, weight in wanted.items() if weight)
        states = "teacher_states" if self.states == "text" else "teacher_model"
        wanted = {"teacher_logits": self.alpha, states: self.hidden}
        return frozenset(name for name, weight in wanted.items() if weight)

    def check_target(self, target: str) -> None:
        """Losses, states and further rows for what the model gives."""
        if target != "text" and self.sequences:
            raise SettingError("distillation.sequences is for translators; this model gives labels.")
        if target == "number" and self.loss == "kl":
            raise SettingError("distillation.loss 'kl' needs classes; for a number, use loss=mse.")
        if target != "text":
            return
        usual = {"loss": ("auto", "kl"), "states": ("text",), "layers": ("uniform",), "augment": (0,)}
        for name, values in usual.items():
            if getattr(self, name) not in values:
                raise SettingError(f"distillation.{name} {getattr(self, name)!r} is for classifiers, not translators.")
        if not self.alpha and not self.sequences:
            raise SettingError("distillation.alpha is 0, so a translator learns nothing of its teacher. Set sequences.")

    def label_settings(self, target: str = "classes") -> dict[str, Any]:
        """The further rows that the teacher must label, and whether its hidden states are wanted beside the logits.

        For a translator whether its translations are.
        """
        if target == "text":
            return {"sequences": True} if self.sequences else {}
        made = {"augment": self.augment, "replace": self.replace} if self.augment else {}
        return made | ({"states": True} if "teacher_states" in self.needs() else {})

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Takes the teacher from the context; where hidden states of another width count, adds a matrix."""
        if context.target == "text":
            return self._prepare_translator(model, context)
        self.check_target(context.target)
        if any(getattr(context, name) is None for name in self.needs()):
            raise SettingError("Distillation needs a teacher. Name one, or let the study train it.")
        if self.loss == "auto":
            self._kind = "mse" if context.target == "number" else "kl"
        if self.alpha:
            self._teacher_logits = context.teacher_logits
        if self.hidden:
            self._hidden = _HiddenStates(model, context, self.layers, self.states)
        return model

    def _prepare_translator(self, model: nn.Module, context: Context) -> nn.Module:
        self.check_target("text")
        if self.alpha:
            if context.teacher_model is None:
                raise SettingError("Distillation needs a teacher. Name one, or let the study train it.")
            self._translator = context.teacher_model.eval().requires_grad_(False)
        return model

    def compute_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The weighted sum of the loss on labels and the distances to the teacher."""
        if self._translator is not None:
            distance = distillation_loss(step.logits, self._words_of_teacher(step), "kl", self.temperature)
            return (1 - self.alpha) * loss + self.alpha * distance
        if self._teacher_logits is not None:
            teacher = self._teacher_logits[step.rows.cpu()].to(step.logits.device)  # (B, C)
            distance = distillation_loss(step.logits, teacher, self._kind, self.temperature)
            loss = (1 - self.alpha) * loss + self.alpha * distance
        if self._hidden is not None:
            loss = loss + self.hidden * self._hidden.distance(step)
        return loss

    @torch.no_grad()
    def _words_of_teacher(self, step: Step) -> Tensor:
        """What the teacher would write in each place (n, V), after the words that are to be written before it."""
        teacher: Any = self._translator
        teacher.to(step.logits.device)
        with autocast(route()):
            logits = teacher(**model_inputs(teacher, step.inputs)).logits
        return logits.float()[step.written]

    def convert(self, model: nn.Module) -> nn.Module:
        """Takes away what looked at the hidden states."""
        if self._hidden is not None:
            self._hidden.remove(model)
        return model


# The teacher's block for each of a student's blocks, counted from 1.
LAYER_MAPS: dict[str, Callable[[int, int, int], int]] = {
    "uniform": lambda block, blocks, teacher_blocks: spread_blocks(blocks, teacher_blocks)[block - 1],
    "last": lambda block, blocks, teacher_blocks: max(1, teacher_blocks - blocks + block),
}
FIT_RIDGE = 0.01  # of the mean square, so that few texts give a matrix too
PROJECTION = "distillation_projection"  # the name in the model, so that it is saved and resumed with it


class _HiddenStates:
    """Compares a model's hidden states with its teacher's: the embeddings, and each block with the one mapped to it.

    Where the widths differ, one matrix (D_teacher, D_model) stands between them, a part of the model until it is
    removed: a learned one, which begins as the best fit on the first batches, unless the model brings its own, as a
    shrunk encoder does.
    """

    def __init__(self, model: nn.Module, context: Context, layers: str, of: str) -> None:
        ours = hidden_layers(model)
        self._model = model
        self._ours = Capture(ours)
        self._teacher = context.teacher_model if of == "token" else None
        self._states = context.teacher_states if of == "text" else None
        if self._teacher is not None:
            theirs = hidden_layers(self._teacher)
            chosen = _mapped(len(ours), len(theirs), layers)
            self._teacher.eval().requires_grad_(False)
            self._theirs = Capture([theirs[index] for index in chosen])
            teacher_config: Any = self._teacher.config
            teacher_width = teacher_config.hidden_size
        elif self._states is not None:
            self._chosen = _mapped(len(ours), self._states.shape[1], layers)
            teacher_width = self._states.shape[2]
        config: Any = model.config
        widths = config.hidden_size, teacher_width
        if widths[0] != widths[1] and not hasattr(model, PROJECTION):
            setattr(model, PROJECTION, nn.Linear(*widths, bias=False))
            self._fit(model, context.first_batches())

    def distance(self, step: Step) -> Tensor:
        """Mean over the layers of the squared distance relative to the teacher's mean square."""
        matrix = getattr(step.model, PROJECTION, None)
        pairs, real = self._pairs(step.inputs, step.rows)
        total = torch.zeros((), device=step.logits.device)
        for mine, target in pairs:
            mask = real[:, : mine.shape[1]]
            found = mine.float() if matrix is None else matrix(mine.float())
            total = total + ((found - target).square() * mask).sum() / (target.square() * mask).sum()
        return total / len(pairs)

    def _pairs(self, inputs: dict[str, Tensor], rows: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """For each layer the states of the model, which has just run, and of its teacher; and where they count.

        Args:
            inputs: What the model was called with.
            rows: (B,), indices of the rows.

        Returns:
            Pairs (B, T, d) and (B, T, D), T being 1 for whole texts and where the last block computed the first token
            only; and (B, T, 1), 1 where there is a token.
        """
        ours, real = self._ours.take(), real_tokens(inputs)
        if self._states is not None:
            wanted = self._states[rows.cpu()][:, self._chosen].to(rows.device).float()  # (B, L, D)
            vectors = [vector[:, None] for vector in text_vectors(self._model, ours, real)]
            return list(zip(vectors, wanted[:, :, None].unbind(1), strict=True)), torch.ones_like(real[:, :1])
        assert self._teacher is not None
        self._teacher.to(rows.device)
        with torch.no_grad(), autocast(route()):
            self._teacher(**model_inputs(self._teacher, inputs))
        theirs = self._theirs.take()
        return [(mine, his[:, : mine.shape[1]].float()) for mine, his in zip(ours, theirs, strict=True)], real

    @torch.no_grad()
    def _fit(self, model: nn.Module, batches: Iterable[dict[str, Tensor]]) -> None:
        """Sets the matrix so that it takes the model's states to its teacher's as well as a linear map can.

        From random weights it would pull the model's states into random directions for its first hundreds of steps.
        """
        matrix: nn.Linear = getattr(model, PROJECTION)
        width, teacher_width = matrix.in_features, matrix.out_features
        model.to(device()).eval()
        products = torch.zeros(width, width + teacher_width, device=device())
        for batch in batches:
            with autocast(route()):
                model(**model_inputs(model, batch))
            pairs, real = self._pairs(batch, batch["rows"])
            for mine, target in pairs:
                inside = real[:, : mine.shape[1], 0].bool()
                x = mine[inside].float()  # (N, d)
                products += x.T @ torch.cat([x, target[inside]], dim=1)
        own = products[:, :width]
        ridge = FIT_RIDGE * own.diagonal().mean() * torch.eye(width, device=device())
        matrix.weight.copy_(torch.linalg.solve(own + ridge, products[:, width:]).T)

    def remove(self, model: nn.Module) -> None:
        """Leave model and teacher as they were."""
        self._ours.remove()
        if self._teacher is not None:
            self._theirs.remove()
        if hasattr(model, PROJECTION):
            delattr(model, PROJECTION)


def _mapped(layers: int, teacher_layers: int, how: str) -> list[int]:
    """For each of a model's layers, the embeddings first, the teacher's."""
    blocks, teacher_blocks = layers - 1, teacher_layers - 1
    return [0, *(LAYER_MAPS[how](block, blocks, teacher_blocks) for block in range(1, layers))]


def distillation_loss(student: Tensor, teacher: Tensor, loss: str, temperature: float) -> Tensor:
    """Distance between two sets of logits, a scalar.

    Args:
        student: (B, C).
        teacher: (B, C).
        loss: `kl`: mean over rows of KL(teacher || student) at `temperature`, times its square, so that the size of
            the gradient does not depend on it; `mse`: mean squared difference.
        temperature: Above 0; unused by `mse`.
    """
    if loss == "mse":
        return functional.mse_loss(student, teacher)
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2
