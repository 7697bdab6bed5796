"""A smaller encoder out of a bigger one, as a model folder: projected, then recovered on plain text.

The projection is that of `models.shrinking`. Recovery is an ordinary training: distillation of the hidden states of the
bigger encoder, seen through the basis of the projection, on rows without labels.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from transformers import BertForSequenceClassification, PreTrainedConfig

from multipress.durable import (
    Lock,
    file_fact,
    is_free,
    move_folder,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
)
from multipress.errors import CheckpointError, DataError, ModelError, SettingError, StoreError
from multipress.methods import Context
from multipress.methods.distillation import PROJECTION, Distillation
from multipress.models import load_pretrained
from multipress.models.catalogue import SHRUNK_FROM, SHRUNK_STEPS, Shape, shrunk_folder, shrunk_shape
from multipress.models.families import config_values
from multipress.models.shrinking import shrink
from multipress.recipe import Recipe
from multipress.reproducibility import seed_for
from multipress.runtime.tokenizer import Encoding
from multipress.spec import TrainingSpec
from multipress.train import LOOP_VERSION, Rows, Saving, collate, train

__all__ = [
    "SHIPPED",
    "TOKENS_A_STEP",
    "adopt_named",
    "check_family",
    "made_with",
    "make_named",
    "projection_of",
    "shipped_text",
    "shrink_encoder",
]

LENGTH = 64  # tokens of a row, special tokens counted, where the encoder reads so many
BATCH = 32
TOKENS_A_STEP = BATCH * LENGTH
CALIBRATION_BATCHES = 16  # 32,768 tokens fit the LayerNorms
LEARNING_RATE = 5e-4
LOOK_AGAIN_SECONDS = 1.0
SHIPPED = Path(__file__).parent / "models" / "data" / "wikitext2" / "text.txt.gz"


def shipped_text() -> list[str]:
    """The paragraphs of WikiText-2's validation and test splits; see `models/data/wikitext2/ATTRIBUTION.md`."""
    return gzip.decompress(SHIPPED.read_bytes()).decode().splitlines()


def shrink_encoder(  # noqa: PLR0913 - what to make of what, from which text, and how long
    source: str,
    shape: Shape,
    out: Path,
    *,
    texts: list[str] | None = None,
    steps: int = 400,
    seed: int = 0,
    models_dir: Path | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Make a smaller encoder and write it as a model folder that `train` and studies take by its path.

    The same call goes on where it was stopped.

    Args:
        source: Short name, folder or hub id of the bigger encoder.
        shape: What to make.
        out: Folder to make; must not exist yet or be empty.
        texts: Plain text to recover on; None: the WikiText-2 text that the package brings.
        steps: Training steps of the recovery, 2,048 tokens each; 0: the projection alone.
        seed: Seed of the order of the text.
        models_dir: Folder of model folders.
        on_step: Called after each step with the steps done, all steps, and the loss.

    Returns:
        `out`, with `config.json`, `model.safetensors` (float16, no head) and `tokenizer.json`.

    Raises:
        ModelError: the source cannot be used, the shape is larger than it, or `out` is taken.
        DataError: the text is too short.
        DivergedError: the recovery diverged.
    """
    if not is_free(out):
        raise ModelError(f"{out} exists already and is not empty. Name another place, or remove it.")
    if steps < 0:
        raise SettingError(f"steps is {steps}, but must be at least 0.")
    torch.set_num_threads(1)  # another number gives other weights
    texts = shipped_text() if texts is None else texts
    pretrained = load_pretrained(source, label_names=(), seed=seed, models_dir=models_dir)
    check_family(pretrained.model.config, source)
    teacher = pretrained.model.eval()
    assert isinstance(teacher, BertForSequenceClassification)
    length = min(LENGTH, teacher.config.max_position_embeddings)
    rows = _rows(pretrained.tokenizer_json, texts, teacher.config.pad_token_id or 0, length)
    small, basis = shrink(teacher, shape, _calibration(rows))
    partial = out.parent / f"{out.name}.shrinking"
    partial.mkdir(parents=True, exist_ok=True)
    lock = Lock(partial / "lock")
    if not lock.acquire():
        raise StoreError(f"Another process is making {out}. Wait for it, or name another place.")
    try:
        if steps:
            facts = [pretrained.sha256, asdict(shape), texts, steps, seed, LOOP_VERSION]
            identity = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
            saving = Saving(partial / "checkpoint.safetensors", identity)
            small = _recover(small, basis, _repeated(rows, steps, seed), teacher, saving, on_step)
        made = asdict(shape) | {"source": Path(source).name, "steps": steps, "seed": seed, **made_with(texts)}
        _write(partial / "model", small, pretrained.tokenizer_json, made)
        move_folder(partial / "model", out)
    finally:
        lock.release()
    shutil.rmtree(partial)
    return out


def made_with(texts: Sequence[str]) -> dict[str, Any]:
    """What else decides the weights of a shrunk encoder: the text, and the code that makes it."""
    text = hashlib.sha256("\x1f".join(texts).encode()).hexdigest()
    constants = [LENGTH, BATCH, CALIBRATION_BATCHES, LEARNING_RATE]
    return {"text_sha256": text, "loop": LOOP_VERSION, "distillation": Distillation.version, "constants": constants}


def check_family(config: PreTrainedConfig, source: str) -> None:
    """Raise `ModelError` for an encoder of a family that is not shrunk."""
    if config.model_type != "bert":
        raise ModelError(f"{source} is of the kind {config.model_type!r}; only BERT encoders ('bert') are shrunk.")


def make_named(
    name: str,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> None:
    """Make the shrunk encoder that a name such as `minilm-l3-h192` stands for, unless it is made or is another name.

    While another process makes it, this one waits.

    Raises:
        ModelError: the name says a shape that cannot be.
        StoreError: the cache folder cannot be written to.
    """
    shape = None if Path(name).is_dir() else shrunk_shape(name)
    if shape is None or shrunk_folder(name).is_dir():
        return
    folder = shrunk_folder(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make {folder.parent}: {error.strerror}. Name a folder by MULTIPRESS_CACHE.") from None
    lock = Lock(folder.parent / "lock")
    while not lock.acquire():
        time.sleep(LOOK_AGAIN_SECONDS)
    try:
        if not folder.is_dir():
            on_note(f"{name} is made from {SHRUNK_FROM}, once: {SHRUNK_STEPS} steps of recovery on text.")
            shrink_encoder(SHRUNK_FROM, shape, folder, steps=SHRUNK_STEPS, on_step=on_step)
    finally:
        lock.release()


@contextmanager
def projection_of(name: str) -> Iterator[str]:
    """A model's name; for that of a shrunk encoder that is not made yet, a folder of its shape, not recovered."""
    shape = None if Path(name).is_dir() else shrunk_shape(name)
    if shape is None or shrunk_folder(name).is_dir():
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(shrink_encoder(SHRUNK_FROM, shape, Path(folder) / name, steps=0))


def adopt_named(name: str, made: Path) -> None:
    """Take over a shrunk encoder that was made elsewhere, as a copy, unless there is one.

    Raises:
        StoreError: the cache folder cannot be written to.
    """
    folder = shrunk_folder(name)
    copy_of = folder.parent / f"{name}.{secrets.token_hex(4)}.copy"
    try:
        shutil.copytree(made, copy_of)
        for path in copy_of.iterdir():
            if file_fact(path, sync=True) != file_fact(made / path.name):
                raise StoreError(f"{path} is not what was copied. Check the disk.")
        sync_folder(copy_of)
        if not folder.is_dir():  # else another process was faster
            move_folder(copy_of, folder)
    except OSError as error:
        if not folder.is_dir():
            raise StoreError(f"Cannot keep {name} in {folder}: {error.strerror}.") from None
    finally:
        shutil.rmtree(copy_of, ignore_errors=True)


def _bridged(small: BertForSequenceClassification, basis: Tensor) -> BertForSequenceClassification:
    """The model with the fixed matrix (D, d) through which its hidden states are compared with its teacher's.

    Pooler and head see none of that, and are no part of the training.
    """
    small.bert.pooler.requires_grad_(False)
    small.classifier.requires_grad_(False)
    bridge = nn.Linear(basis.shape[1], basis.shape[0], bias=False)
    bridge.weight = nn.Parameter(basis.clone(), requires_grad=False)
    setattr(small, PROJECTION, bridge)
    return small


def _recover(
    small: BertForSequenceClassification,
    basis: Tensor,
    rows: Rows,
    teacher: BertForSequenceClassification,
    saving: Saving,
    on_step: Callable[[int, int, float], None] | None,
) -> nn.Module:
    training = TrainingSpec(epochs=1, learning_rate=LEARNING_RATE, batch_size=BATCH, max_length=LENGTH)

    def attempt() -> nn.Module:
        model, context = _bridged(copy.deepcopy(small), basis), Context("number", teacher_model=copy.deepcopy(teacher))
        recipe = Recipe([Distillation(alpha=0.0, hidden=1.0, states="token")])
        return train(model, rows, recipe, training, context, saving=saving, on_step=on_step)

    try:
        return attempt()
    except CheckpointError:
        # It is of another shape, text or version, or was cut off by a crash; the recovery starts anew without it.
        saving.path.unlink()
        return attempt()


def _rows(tokenizer_json: str, texts: list[str], pad_id: int, length: int) -> Rows:
    """The text as one stream of tokens, cut into rows of `length` with the special tokens around each.

    Raises:
        DataError: there is less than a batch of it.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json)
    around = tokenizer.encode("").ids
    inside = length - len(around)
    stream = [token for text in texts for token in tokenizer.encode(text, add_special_tokens=False).ids]
    pieces = [stream[first : first + inside] for first in range(0, len(stream) - inside + 1, inside)]
    if len(pieces) < BATCH:
        raise DataError(f"The text has {len(stream):,} tokens, but recovery needs at least {BATCH * inside:,}.")
    encodings = [Encoding([around[0], *piece, *around[1:]], [0] * length) for piece in pieces]
    return Rows(encodings, None, pad_id)


def _repeated(rows: Rows, steps: int, seed: int) -> Rows:
    """As many rows as the steps take: all of them in random order, again and again."""
    count = steps * BATCH
    random = np.random.Generator(np.random.PCG64(seed_for(seed, "recovery")))
    rounds = -(-count // len(rows.encodings))
    order = np.concatenate([random.permutation(len(rows.encodings)) for _ in range(rounds)])[:count]
    return Rows([rows.encodings[index] for index in order], None, rows.pad_id)


def _calibration(rows: Rows) -> list[dict[str, Tensor]]:
    """Batches of the first rows, as a model is called with them."""
    count = min(len(rows.encodings), CALIBRATION_BATCHES * BATCH)
    batches = [collate(rows, np.arange(first, min(first + BATCH, count))) for first in range(0, count, BATCH)]
    return [{key: value.cpu() for key, value in batch.items() if key != "rows"} for batch in batches]


def _write(folder: Path, model: nn.Module, tokenizer_json: str, made: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config: Any = model.config
    values = config_values(config)
    write_json(folder / "config.json", values | {"architectures": ["BertModel"], "dtype": "float16", "shrunk": made})
    encoder: Any = model.bert
    weights = {name: value.detach().half().contiguous() for name, value in encoder.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(weights, {"format": "pt"}))
    write_text(folder / "tokenizer.json", tokenizer_json)
