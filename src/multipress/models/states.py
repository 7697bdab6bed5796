"""Hidden states: kept while a model runs, and one vector a text of each layer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from multipress.models.encoder import model_batch, model_inputs
from multipress.models.families import family_of
from multipress.precision import autocast, device, route
from multipress.runtime.tokenizer import Encoding, batches_by_length

__all__ = ["Capture", "hidden_layers", "real_tokens", "text_vectors", "write_text_states"]

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


def text_vectors(model: nn.Module, layers: Sequence[Tensor], real: Tensor) -> list[Tensor]:
    """One vector a text of each layer, (B, D): the mean over its tokens; of the last layer what the head reads.

    That is the first token's state, all that a shortened last block computes, or, of a ModernBERT whose config says
    so, the mean as well.

    Args:
        model: The model whose states they are.
        layers: States (B, T, D), the last block's last; that one may hold the first token alone.
        real: (B, T, 1), as `real_tokens` gives it.
    """
    reads_all = getattr(model.config, "classifier_pooling", "cls") == "mean"
    pooled = layers if reads_all else layers[:-1]
    means = [(states * real).sum(1) / real.sum(1) for states in pooled]
    return means if reads_all else [*means, layers[-1][:, 0]]


def write_text_states(path: Path, model: nn.Module, rows: Sequence[Encoding], pad_id: int) -> None:
    """Write the text vectors of each layer of a model as the tensor `states` (N, L + 1, D) of a safetensors file.

    They are float16, or float32 where that is too narrow. Only a batch of them is in memory at a time, and none when
    the file is opened by `safetensors.torch.load_file`, which maps it.

    Args:
        path: The file to make.
        model: A classifier.
        rows: N encoded texts.
        pad_id: Token id that fills short rows.
    """
    if not _write_states(path, model, rows, pad_id, np.dtype("<f2")):
        _write_states(path, model, rows, pad_id, np.dtype("<f4"))


@torch.no_grad()
def _write_states(path: Path, model: nn.Module, rows: Sequence[Encoding], pad_id: int, dtype: np.dtype[Any]) -> bool:
    """As `write_text_states`, in one type; whether it can hold them all."""
    config: Any = model.config
    model.to(device()).eval()
    shape = (len(rows), config.num_hidden_layers + 1, config.hidden_size)
    num_bytes = math.prod(shape) * dtype.itemsize
    record = {"dtype": f"F{8 * dtype.itemsize}", "shape": shape, "data_offsets": [0, num_bytes]}
    header = json.dumps({"states": record}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + num_bytes)
    if not num_bytes:
        return True
    found = np.memmap(path, dtype, "r+", 8 + len(header), shape)
    with Capture(hidden_layers(model)) as capture:
        for chosen in batches_by_length([len(row.ids) for row in rows], BATCH):
            batch = model_batch([rows[index] for index in chosen], pad_id)
            with autocast(route()):
                model(**model_inputs(model, batch))
            vectors = text_vectors(model, [states.float() for states in capture.take()], real_tokens(batch))
            values = torch.stack(vectors, 1).cpu().numpy()
            if dtype.itemsize == 2 and np.abs(values).max() > np.finfo(dtype).max:
                return False
            found[chosen] = values
    found.flush()
    return True
