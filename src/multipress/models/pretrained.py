"""Reading pre-trained encoders: strict, pickle-free, nothing in the folder is run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig, PreTrainedConfig, PreTrainedModel

from multipress.artifact import is_artifacts, max_tokens
from multipress.errors import ModelError, SettingError
from multipress.models.catalogue import BERT_SIZES, PICKLE_SUFFIXES, Shape, Source, find_model, shrunk_shape
from multipress.models.encoder import build_classifier, expected_shapes
from multipress.models.families import Family, family_of, new_weight, read_config
from multipress.models.tokenizer_files import inside, read_tokenizer
from multipress.models.translation import (
    NAMED,
    TranslatorShape,
    new_weights,
    train_tokenizer,
    translator_config,
    translator_shape,
)
from multipress.reproducibility import file_sha256, seed_for

__all__ = ["PretrainedModel", "identify", "load_pretrained", "shape_by_name"]

FLOAT_TYPES = ("F32", "F16", "BF16")
MAX_CONFIG_BYTES = 1_000_000
NEW_VERSION = 2  # of new translators: raise it when the same name and seed give other weights
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class Checked:
    """A model folder that was read up to its header and found right; no weight is in memory yet."""

    source: Source
    config: PreTrainedConfig
    names: dict[str, str]  # tensor of our model -> tensor of the file
    num_labels: int  # outputs of the head in the file; 0 without one for texts
    label_names: tuple[str, ...]  # of that head; empty where it has one output, or they are not named
    tokenizer_json: str
    sha256: str

    @property
    def tokenizer(self) -> str | int:
        """The tokenizer as one JSON text; where it is learned from the rows later, how many pieces it will have."""
        return self.tokenizer_json or int(self.config.vocab_size)

    @property
    def max_length(self) -> int:
        """Most tokens of a row, special tokens counted."""
        return max_tokens(self.config.to_dict()) or 0

    def check_target(self, target: str) -> None:
        """Raise `SettingError` if the model is not for a task of this kind (`classes`, `number`, `text`)."""
        if family_of(self.config).writes != (target == "text"):
            own, asked = ("writes text", "labels") if target != "text" else ("gives labels", "text")
            raise SettingError(
                f"{self.source.name} {own}, but the task asks for {asked}. "
                + ("Take an encoder." if target != "text" else f"Take a translator: {', '.join(NAMED)}.")
            )

    def check_length(self, max_length: int) -> None:
        """Raise `SettingError` if the model has fewer positions than rows may have tokens."""
        positions = self.max_length
        if max_length > positions:
            raise SettingError(
                f"max_length is {max_length}, but {self.source.name} has {positions} positions. "
                f"Write at most {positions} (--max-length {positions})."
            )


@dataclass(frozen=True)
class PretrainedModel:
    """A pre-trained encoder with a task head, ready to train.

    Args:
        model: Float32 classifier with `num_outputs` outputs.
        tokenizer_json: Its tokenizer as one JSON text, without truncation and padding.
        sha256: Identity of weights, config, blocks chosen and tokenizer.
        new_head: Whether the head was drawn from the seed; False: it came with the model.
        note: What a user should know; empty if nothing.
    """

    model: PreTrainedModel
    tokenizer_json: str
    sha256: str
    new_head: bool
    note: str = ""


def identify(name: str, models_dir: Path | None = None) -> Checked:
    """Read config, header and tokenizer of a model and check them; no weight is read but to hash the file.

    Raises:
        ModelError: see `load_pretrained`.
    """
    shape = None if Path(name).is_dir() else translator_shape(name)
    if shape is not None:
        return _to_be_made(name, shape)
    source = find_model(name, models_dir)
    values = _read_config(source.folder)
    config = read_config(values, source.name)
    _check_size(name, config, source.folder)
    if values.get("problem_type") == "multi_label_classification":
        several = f"{source.name} was fine-tuned to give several labels a text (problem_type in its config.json)"
        raise ModelError(f"{several}, which is not supported. Give the encoder that it was made from.")
    weights = _weights_file(source.folder)
    names, num_labels = _match_header(weights, config, source)
    tokenizer_json = read_tokenizer(source.folder, config, source.name)
    kind = family_of(config).classifier.__name__
    if kind not in (values.get("architectures") or [kind]):
        num_labels = 0  # a head for tokens or for choices may have the same names of tensors
    label_names = _label_names(values, num_labels)
    if source.blocks:
        config.num_hidden_layers = len(source.blocks)
    parts = [
        source.weights_sha256 or file_sha256(weights),
        config.to_json_string(),
        repr(source.blocks),
        tokenizer_json,
        repr(label_names),
    ]
    sha256 = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
    return Checked(source, config, names, num_labels, label_names, tokenizer_json, sha256)


def _check_size(name: str, config: PreTrainedConfig, folder: Path) -> None:
    """Raise `ModelError` where a folder that a size's name stands for, such as `bert-tiny`, holds another size."""
    if name not in BERT_SIZES or Path(name).is_dir():
        return
    _, layers, hidden = BERT_SIZES[name]
    if (config.num_hidden_layers, config.hidden_size) != (layers, hidden):
        raise ModelError(
            f"{name} has {layers} layers and hidden {hidden}, but {folder} holds a model of {config.num_hidden_layers} "
            f"layers and hidden {config.hidden_size}. Give another model's folder by its path."
        )


def _to_be_made(name: str, shape: TranslatorShape) -> Checked:
    """What is known of a new translator before its tokenizer is learned from the rows."""
    identity = f"new translator, version {NEW_VERSION}: {shape}"
    sha256 = hashlib.sha256(identity.encode()).hexdigest()
    return Checked(Source(name, Path()), translator_config(shape), {}, 0, (), tokenizer_json="", sha256=sha256)


def shape_by_name(name: str) -> Checked | None:
    """What is known of a model whose name says its shape, without having it: no tokenizer; None for other names."""
    shape = shrunk_shape(name)
    if name in BERT_SIZES:
        _, layers, hidden = BERT_SIZES[name]
        shape = Shape(layers, hidden, hidden // 64, 4 * hidden)
    if shape is None:
        return None
    config = BertConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
    )
    return Checked(Source(name, Path()), config, {}, 0, (), tokenizer_json="", sha256=f"not here: {name}")


def load_pretrained(
    name: str,
    *,
    label_names: tuple[str, ...],
    seed: int,
    dropout: float = 0.0,
    models_dir: Path | None = None,
    texts: Sequence[str] = (),
) -> PretrainedModel:
    """Load an encoder and give it a head for a task, load a translator, or make one that a name stands for.

    A head that is in the file is kept if its label names are the task's, in the same order (for a number: if it has one
    output); otherwise a new one is drawn from the seed, and the note says so.

    Args:
        name: Short name, folder or hub id.
        label_names: Class names in order; empty for a number.
        seed: Seed of the new head.
        dropout: Dropout of embeddings, attention and blocks.
        models_dir: Folder of model folders.
        texts: What the tokenizer of a new translator is learned from.

    Raises:
        ModelError: no safetensors file, a pickle, another architecture, a tensor that is missing, unexpected, or of
            another shape or type than the config says (all are named), an unusable tokenizer.
    """
    checked = identify(name, models_dir)
    config = checked.config
    config.num_labels = len(label_names) or 1
    family = family_of(config)
    for key in family.dropouts:
        setattr(config, key, dropout)
    config._attn_implementation = "eager"
    if not checked.tokenizer_json:
        return _new_translator(checked, texts, seed)
    if label_names:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {label: index for index, label in enumerate(label_names)}
    output = f"{family.output}.weight"
    keep_head = output in checked.names and checked.num_labels == config.num_labels
    keep_head = keep_head and checked.label_names == label_names
    weights = _read_weights(checked, family, keep_head)
    note = ""
    if not keep_head:
        weights |= _new_head(config, set(weights), seed)
        if output in checked.names:
            unnamed = f"{checked.num_labels} outputs without names" if checked.num_labels else "of another kind of task"
            theirs = ", ".join(checked.label_names) or unnamed
            note = f"The head of {name} ({theirs}) does not fit the labels of the task, so a new one was drawn."
    model = build_classifier(config, weights)
    new_head = not keep_head and not family.writes
    return PretrainedModel(model, checked.tokenizer_json, checked.sha256, new_head=new_head, note=note)


def _new_translator(checked: Checked, texts: Sequence[str], seed: int) -> PretrainedModel:
    config: Any = checked.config
    tokenizer_json = train_tokenizer(texts, config.vocab_size)
    config.vocab_size = config.decoder_vocab_size = Tokenizer.from_str(tokenizer_json).get_vocab_size()
    model = build_classifier(config, new_weights(expected_shapes(config), seed))
    return PretrainedModel(model, tokenizer_json, checked.sha256, new_head=True)


def _new_head(config: PreTrainedConfig, have: set[str], seed: int) -> dict[str, Tensor]:
    """What a head lacks, drawn from the seed."""
    generator = torch.Generator().manual_seed(seed_for(seed, "head"))
    shapes = {name: shape for name, shape in expected_shapes(config).items() if name not in have}
    return {name: new_weight(name, shape, config, generator) for name, shape in shapes.items()}


def _read_config(folder: Path) -> dict[str, Any]:
    path = inside(folder, "config.json")
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json, so it is no model folder.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelError(f"{path} has {path.stat().st_size} bytes; a config has at most {MAX_CONFIG_BYTES}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds no JSON object.")
    if is_artifacts(values):
        raise ModelError(
            f"{folder} is an artifact, stored already. Make a model of it: multipress export {folder} --to safetensors "
            "-o NEW_FOLDER"
        )
    return values


def _weights_file(folder: Path) -> Path:
    path = inside(folder, "model.safetensors")
    if not path.is_file():
        if (folder / "model.safetensors.index.json").exists():
            raise ModelError(f"{folder}: weights in several files are not read. Save them as one model.safetensors.")
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLE_SUFFIXES)
        if pickles:
            raise ModelError(
                f"{folder} holds {pickles[0]}, which may run code when it is loaded, and no model.safetensors. "
                f"Make safetensors of it: multipress convert {folder} -o NEW_FOLDER"
            )
        raise ModelError(f"{folder} has no model.safetensors.")
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(PICKLE_STARTS):
        raise ModelError(f"{path} is a pickle or zip file by its content, not safetensors. It was not opened.")
    return path


def _match_header(path: Path, config: PreTrainedConfig, source: Source) -> tuple[dict[str, str], int]:
    """Compare the file's header with the config.

    Returns:
        For each tensor of our model its name in the file, and the number of outputs of the file's head (0: none).
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = {
                key: (tuple(file.get_slice(key).get_shape()), file.get_slice(key).get_dtype())
                for key in file.keys()  # noqa: SIM118 - a file, not a dict
            }
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}.") from None
    family = family_of(config)
    used = [key for key in header if not re.fullmatch(family.unused, key)]
    found = {_our_name(key, family): key for key in used}
    if len(found) < len(used):
        raise ModelError(f"{path}: two tensors stand for the same weight of the model.")
    output = f"{family.output}.weight"
    num_labels = header[found[output]][0][0] if output in found and header[found[output]][0] else 0
    config.num_labels = num_labels or 2
    expected = expected_shapes(config)
    has_head = any(name.startswith(f"{family.output}.") for name in found)
    optional = set() if has_head else {name for name in expected if name.startswith(family.drawn)}
    missing = sorted(set(expected) - set(found) - optional)
    unexpected = sorted(found[name] for name in set(found) - set(expected))
    wrong = sorted(
        f"{key} is {header[key][0]} {header[key][1]}, not {expected[name]}"
        for name, key in found.items()
        if name in expected and (header[key][0] != expected[name] or header[key][1] not in FLOAT_TYPES)
    )
    problems = [
        f"{what}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("mismatched", wrong))
        if names
    ]
    if problems:
        raise ModelError(f"{path} does not hold the model that config.json describes. {'; '.join(problems)}.")
    return _choose_blocks(found, family, source.blocks), num_labels


def _our_name(key: str, family: Family) -> str:
    """Name in our model of a tensor of a file: with the encoder's prefix, and LayerNorm's modern names."""
    name = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name if name.startswith((f"{family.prefix}.", *family.drawn)) else f"{family.prefix}.{name}"


def _choose_blocks(names: dict[str, str], family: Family, blocks: tuple[int, ...]) -> dict[str, str]:
    if not blocks:
        return names
    prefix = f"{family.prefix}.{family.blocks}."
    chosen = {name: key for name, key in names.items() if not name.startswith(prefix)}
    for new, old in enumerate(blocks):
        start = f"{prefix}{old}."
        for name, key in names.items():
            if name.startswith(start):
                chosen[f"{prefix}{new}.{name.removeprefix(start)}"] = key
    return chosen


def _label_names(values: dict[str, Any], num_labels: int) -> tuple[str, ...]:
    table = values.get("id2label")
    if num_labels < 2 or not isinstance(table, dict) or len(table) != num_labels:
        return ()
    return tuple(str(table.get(str(index), "")) for index in range(num_labels))


def _read_weights(checked: Checked, family: Family, keep_head: bool) -> dict[str, Tensor]:
    """All weights of the file but, where the head is not kept, its output layer."""
    weights: dict[str, Tensor] = {}
    with safe_open(checked.source.folder / "model.safetensors", framework="pt") as file:
        for name, key in checked.names.items():
            if keep_head or not name.startswith(f"{family.output}."):
                weights[name] = file.get_tensor(key).to(torch.float32)
                if not torch.isfinite(weights[name]).all():
                    raise ModelError(f"{checked.source.name}: {key} holds values that are NaN or infinite.")
    return weights
