"""A trained model to an artifact, and back to a torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from multipress.artifact import Artifact, StoredTensor, open_artifact, round_floats, write_artifact
from multipress.block_shapes import read_block_shapes, whole_block
from multipress.errors import ArtifactError, MultipressError
from multipress.methods.quantization import activation_scales, quantize_activations
from multipress.models.encoder import build_classifier, expected_shapes
from multipress.models.families import config_values, family_of, read_config
from multipress.models.graph import trace_graph
from multipress.models.held_zeros import NUM_PRUNED
from multipress.models.structure import block_shapes_of
from multipress.models.translation import FIXED_WEIGHTS
from multipress.models.vocabulary import shrink_tokenizer

__all__ = ["load_model", "save_model", "stored_tensors"]


def save_model(folder: Path, model: nn.Module, *, tokenizer_json: str, facts: dict[str, Any]) -> Artifact:
    """Store a converted model as an artifact.

    Weights that a method left as integers are stored as they are; all others are rounded to float16 (float32 where
    a value is too large for it).

    Args:
        folder: Made if needed.
        model: A classifier or translator after `Recipe.convert`.
        tokenizer_json: The tokenizer it was trained with; words that a method dropped are taken away from it.
        facts: `run_id`, `spec`, `task`, `max_length`, `versions`; `pruned`, `dropped` (weights that are gone with their
            rows) and `quantization` are added.
    """
    tensors, aliases = stored_tensors(model)
    pruned = {
        f"{name}.{kind}": getattr(module, count)
        for name, module in model.named_modules()
        for kind, count in NUM_PRUNED.items()
        if hasattr(module, count)
    }
    kept_words: Any = getattr(model, "kept_words", None)
    if kept_words is not None:
        tokenizer_json = shrink_tokenizer(tokenizer_json, kept_words)
    return write_artifact(
        folder,
        tensors=tensors,
        aliases=aliases,
        config=_config(model, facts),
        tokenizer_json=tokenizer_json,
        graph=None if family_of(model).writes else trace_graph(model),
        facts={
            **facts,
            "pruned": pruned,
            "dropped": getattr(model, "num_dropped", 0),
            "quantization": _quantization(model),
        },
        block_shapes=_block_shapes(model),
    )


def stored_tensors(model: nn.Module) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Every weight as it is stored, and for each further name of a shared weight its first name."""
    codes = {f"{name}.weight": module for name, module in model.named_modules() if hasattr(module, "weight_codes")}
    tensors: dict[str, StoredTensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[int, str] = {}
    gives_number = getattr(getattr(model, "config", None), "num_labels", 0) == 1
    number = f"{family_of(model).output}.bias" if gives_number else ""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first_names:
            aliases[name] = first_names[id(parameter)]
            continue
        first_names[id(parameter)] = name
        if name in codes:
            module: Any = codes[name]
            tensors[name] = StoredTensor(module.weight_codes.numpy(), module.weight_scale.numpy(), module.weight_bits)
        else:
            tensors[name] = round_floats(parameter.detach().numpy(), is_exact=name == number)
    # What was learned before and is not trained: the bias of a translator's words.
    others = {name: buffer for name, buffer in model.named_buffers() if name in FIXED_WEIGHTS}
    tensors |= {name: round_floats(buffer.numpy()) for name, buffer in others.items()}
    return tensors, aliases


def _block_shapes(model: nn.Module) -> list[tuple[int, int]] | None:
    """Heads and neurons of each block, where any has fewer than its config says; None: all are whole."""
    if family_of(model).writes:
        return None
    shapes, whole = block_shapes_of(model), whole_block(config_values(model.config))
    return shapes if any(shape != whole for shape in shapes) else None


def _quantization(model: nn.Module) -> dict[str, Any]:
    """What `quantization_config` says; empty for a model of floats."""
    linears = {m.weight_bits for m in model.modules() if isinstance(m, nn.Linear) and hasattr(m, "weight_bits")}
    embeddings = {m.weight_bits for m in model.modules() if isinstance(m, nn.Embedding) and hasattr(m, "weight_bits")}
    if not linears and not embeddings:
        return {}
    return {
        "bits": max(linears, default=None),
        "embedding_bits": max(embeddings, default=None),
        "activation_bits": getattr(model, "activation_bits", None),
    }


def _config(model: nn.Module, facts: dict[str, Any]) -> dict[str, Any]:
    config: Any = model.config
    family, labels = family_of(config), facts["task"]["labels"]
    values = config_values(config) | {"architectures": [family.classifier.__name__], "dtype": "float32"}
    if (scales := activation_scales(model)) is not None:
        values["quantization_config"] = {"activation_scales": scales}
    if family.writes:
        return values
    if labels:
        values["id2label"] = {str(index): label for index, label in enumerate(labels)}
        values["label2id"] = {label: index for index, label in enumerate(labels)}
    else:
        values |= {"num_labels": 1, "problem_type": "regression"}
    return values


def load_model(folder: Path) -> PreTrainedModel:
    """Open an artifact as a torch module in evaluation mode, its weights as float32.

    8-bit activations are rounded as they were in the training.

    Raises:
        ArtifactError: the artifact is damaged, or its weights do not fit its config; the message names them.
    """
    artifact = open_artifact(folder)
    try:
        config = read_config(artifact.config, str(folder))
    except MultipressError as error:
        raise ArtifactError(str(error)) from None
    labels, writes = artifact.facts["task"]["labels"], artifact.facts["task"]["target"] == "text"
    config.num_labels = len(labels) or 1
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    elif not writes:
        config.problem_type = "regression"
    config._attn_implementation = "eager"
    shapes = {name: tuple(record["shape"]) for name, record in artifact.manifest["tensors"].items()}
    family = family_of(config)
    if family.writes != writes:
        raise ArtifactError(f"{folder}: the model of its config.json is not for the task that its manifest states.")
    shapes |= {alias: shapes[name] for alias, name in artifact.aliases.items() if alias not in family.tied}
    block_shapes = read_block_shapes(artifact.config)
    expected = expected_shapes(config, block_shapes)
    wrong = sorted(set(shapes) ^ set(expected)) or sorted(n for n in expected if shapes[n] != expected[n])
    if wrong:
        raise ArtifactError(f"{folder}: weights and config.json do not fit each other: {', '.join(wrong[:5])}.")
    found = {name: value for name, value in artifact.dense_weights().items() if name not in family.tied}
    weights = {name: torch.from_numpy(value) for name, value in found.items()}
    model = build_classifier(config, weights, block_shapes)
    stored = artifact.config["quantization_config"]
    if (bits := stored.get("activation_bits")) is not None:
        quantize_activations(model, bits, stored.get("activation_scales"))
    return model.eval()
