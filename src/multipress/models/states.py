"""Hidden states: kept while a model runs, and one vector a text of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from multipress.models.encoder import model_batch, model_inputs
from multipress.models.families import family_of
from multipress.precision import autocast, device, route
from multipress.runtime.tokenizer import Encoding, batches_by_length

__all__ = ["Capture", "hidden_layers", "real_tokens", "text_states", "text_vectors"]

BATCH = 32


def hidden_layers(model: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the hidden states (B, T, D): the embeddings, then each block."""
    family = family_of(model)
    encoder = family.encoder(model)
    embeddings = getattr(encoder, "embeddings_project", encoder.embeddings)  # ELECTRA's may be narrower
    return [embeddings, *family.block_list(model)]


class Capture:
    """Keeps the outputs of some modules in the order in which they are given; a module may be given twice."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._outputs: dict[nn.Module, Tensor] = {}
        self._modules = modules
        self._hooks = [module.register_forward_hook(self._keep) for module in set(modules)]

    def _keep(self, module: nn.Module, _: Any, output: Any) -> None:
        self._outputs[module] = output[0] if isinstance(output, tuple) else output

    def take(self) -> list[Tensor]:
        """The outputs (B, T, D) of the last forward pass; they are not kept longer."""
        outputs = [self._outputs[module] for module in self._modules]
        self._outputs.clear()
        return outputs

    def remove(self) -> None:
        """Leave the modules as they were."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def real_tokens(batch: dict[str, Tensor]) -> Tensor:
    """(B, T, 1), 1 where a batch holds a token and 0 where it is filled up."""
    return (batch["attention_mask"][:, 0, 0, :, None] == 0).float()


def text_vectors(layers: Sequence[Tensor], real: Tensor) -> list[Tensor]:
    """One vector a text of each layer, (B, D): the mean over its tokens; of the last layer the first token's state.

    The first token is what heads read, and all that a shortened last block computes.

    Args:
        layers: States (B, T, D), the last block's last; that one may hold the first token alone.
        real: (B, T, 1), as `real_tokens` gives it.
    """
    means = [(states * real).sum(1) / real.sum(1) for states in layers[:-1]]
    return [*means, layers[-1][:, 0]]


@torch.no_grad()
def text_states(model: nn.Module, rows: Sequence[Encoding], pad_id: int) -> np.ndarray:
    """The text vectors of each layer of a model: (N, L + 1, D), float16, or float32 where that is too narrow.

    Args:
        model: A classifier.
        rows: N encoded texts.
        pad_id: Token id that fills short rows.
    """
    config: Any = model.config
    model.to(device()).eval()
    found = np.zeros((len(rows), config.num_hidden_layers + 1, config.hidden_size), np.float32)
    with Capture(hidden_layers(model)) as capture:
        for chosen in batches_by_length([len(row.ids) for row in rows], BATCH):
            batch = model_batch([rows[index] for index in chosen], pad_id)
            with autocast(route()):
                model(**model_inputs(model, batch))
            vectors = text_vectors([states.float() for states in capture.take()], real_tokens(batch))
            found[chosen] = torch.stack(vectors, 1).cpu().numpy()
    return found.astype(np.float16) if np.abs(found).max(initial=0) < np.finfo(np.float16).max else found
