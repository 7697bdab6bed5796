"""A tiny encoder, rows that it can learn, and the loop around them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

from multipress.methods import Context, list_methods
from multipress.models import read_first_token_only
from multipress.models.states import write_text_states
from multipress.models.vocabulary import words_to_keep
from multipress.recipe import Recipe
from multipress.runtime.tokenizer import Encoding
from multipress.spec import MethodSpec, TrainingSpec
from multipress.train import Rows, Saving, collate, train
from tiny import SPECIAL, bert_config, word_piece

WORDS = [f"word{i:02}" for i in range(60)]  # in the order in which a smaller tokenizer has them
UNUSED = [f"rare{i}" for i in range(7)]  # in no row; last, so that the ids of the others stay when they are dropped
TRAINING = TrainingSpec(epochs=3, learning_rate=1e-2, batch_size=8, max_length=16, dropout=0.1)
# What makes a tiny run of 18 steps show every method at work.
# The hidden states of its teacher say nothing of the classes.
SETTINGS: dict[str, dict] = {"pruning": {"sparsity": 0.5, "updates": 3}, "distillation": {"hidden": 0.1}}


def all_subsets() -> list[tuple[str, ...]]:
    """Every subset of the registered methods."""
    names = list_methods()
    return [subset for size in range(len(names) + 1) for subset in itertools.combinations(names, size)]


def tiny_model(seed: int = 0, **changes: int) -> BertForSequenceClassification:
    """Two layers, 32 hidden units, three classes."""
    config = bert_config(
        len(WORDS + UNUSED),
        num_labels=3,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        **changes,
    )
    torch.manual_seed(seed)
    return BertForSequenceClassification(config)


def tiny_rows(count: int = 48) -> Rows:
    """Rows of 4 to 12 words whose class is that of their second word."""
    random = np.random.default_rng(7)
    encodings, labels = [], []
    for _ in range(count):
        words = random.integers(len(SPECIAL), len(SPECIAL) + len(WORDS), size=random.integers(2, 11)).tolist()
        encodings.append(Encoding([2, *words, 3], [0] * (len(words) + 2)))
        labels.append(words[0] % 3)
    return Rows(encodings, np.array(labels, dtype=np.int64), pad_id=0)


def tiny_tokenizer() -> str:
    """A WordPiece tokenizer over `WORDS` and `UNUSED`."""
    return word_piece(WORDS + UNUSED)


def tiny_recipe(names: tuple[str, ...], **settings: dict) -> Recipe:
    """A recipe of these methods with the settings that suit a tiny run."""
    chosen = SETTINGS | settings
    return Recipe.from_specs(tuple(MethodSpec(name, chosen.get(name, {})) for name in names))


def tiny_context(seed: int = 0) -> Context:
    """A context with a wider teacher, and what it says of the rows."""
    labels = torch.from_numpy(tiny_rows().labels)
    teacher = tiny_model(9, hidden_size=48)
    with tempfile.TemporaryDirectory() as folder:
        write_text_states(Path(folder) / "states", teacher, tiny_rows().encodings, tiny_rows().pad_id)
        states = load_file(Path(folder) / "states")["states"].clone()
    logits = torch.nn.functional.one_hot(labels, 3) * 4.0
    return Context(
        seed=seed,
        teacher_logits=logits,
        teacher_states=states,
        teacher_model=teacher,
        first_batches=lambda: [collate(tiny_rows(), np.arange(8))],
        words=lambda general: words_to_keep(tiny_tokenizer(), tiny_rows().encodings, WORDS),
    )


def tiny_train(
    recipe: Recipe, *, seed: int = 0, saving: Saving | None = None, on_step: Callable | None = None
) -> BertForSequenceClassification:
    """A whole tiny training."""
    model = read_first_token_only(tiny_model(seed))
    return train(model, tiny_rows(), recipe, TRAINING, tiny_context(seed), saving=saving, on_step=on_step)


def tiny_logits(model: torch.nn.Module) -> torch.Tensor:
    """Logits of the tiny rows, one row at a time, so that nothing is padded."""
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([row.ids])).logits for row in tiny_rows().encodings])


FACTS = {
    "run_id": "0" * 12,
    "task": {
        "name": "tiny",
        "target": "classes",
        "labels": ["a", "b", "c"],
        "metrics": ["accuracy"],
        "score": "accuracy",
    },
    "max_length": 16,
}


@pytest.fixture(scope="session")
def tiny():
    """All of the above as one object."""
    import sys
    from types import SimpleNamespace

    return SimpleNamespace(**vars(sys.modules[__name__]))
