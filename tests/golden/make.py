"""Made the artifacts beside, once for each version of the format: `python tests/golden/make.py NAME...`.

What is here must open for as long as its version is read, so nothing is made again; a new version or codec gets a new
one. `expected.json` holds what each of them decoded to when it was made. `format-2` was made by the code before
version 3 (commit 24ba2a0^), those of 3, 4 and 5 before version 6 (commit 43f0012 and older), those of 6 before version
7 (commit aa83b12 and older).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification

from multipress.artifact import open_artifact
from multipress.checkpoint import save_model
from multipress.methods import Context
from multipress.recipe import Recipe
from multipress.runtime import Predictor
from multipress.spec import MethodSpec

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import bert_config, word_piece

HERE = Path(__file__).parent
WORDS = [f"word{index}" for index in range(30)]
TEXTS = ["word1 word2 word3", "", "word29 unknown", "word7 " * 20]
CODED = {"bits": 8, "learned_step": True, "steps": "tensor"}
RECIPES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "format-2": [("pruning", {"sparsity": 0.6}), ("quantization", {"bits": 4})],
    "format-3-floats": [],
    "format-3-groups": [("quantization", {"bits": 3, "group": 16})],
    "format-3-tensor-steps": [("pruning", {"sparsity": 0.9, "embeddings": True}), ("quantization", CODED)],
    "format-4": [("structured", {"heads": 0.5, "neurons": 0.5}), ("quantization", {"bits": 8})],
    "format-5": [
        ("structured", {"heads": 0.5, "neurons": 0.5}),
        ("quantization", {"bits": 8, "activation_bits": 8, "activation_scale": "static"}),
    ],
    "format-6": [
        ("structured", {"heads": 0.5, "neurons": 0.5}),
        ("quantization", {"bits": 8, "activation_bits": 8, "activation_scale": "static"}),
    ],
    "format-6-groups": [("quantization", {"bits": 3, "group": 16})],
    "format-6-tensor-steps": [("pruning", {"sparsity": 0.9, "embeddings": True}), ("quantization", CODED)],
    "format-7": [("quantization", {"rate": 2.2, "steps": "tensor"})],
    "format-7-gaps": [("quantization", {"rate": 1.0, "steps": "tensor"})],
}


def make(name: str) -> None:
    """Write one artifact."""
    torch.manual_seed(0)
    # Small integers have layouts of their own where they are many, and few of them large.
    neurons, tails = (3000, 3) if name.startswith("format-7") else (32, 1)
    shape = {"hidden_size": 32, "intermediate_size": neurons, "num_hidden_layers": 1, "num_labels": 3}
    model: Any = BertForSequenceClassification(bert_config(len(WORDS), **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape) ** tails)
    recipe = Recipe.from_specs(tuple(MethodSpec(*part) for part in RECIPES[name]))
    model = recipe.prepare(model, Context())
    model.train()  # scales of activations follow the batch
    model(input_ids=torch.full((2, 4), 5)).logits.sum().backward()  # what leaves is chosen by gradients
    recipe.on_step_end(model, 1.0)
    model.eval()
    task = {"name": "text", "target": "classes", "labels": ["a", "b", "c"], "metrics": ["accuracy"]}
    facts = {"run_id": "0" * 12, "task": task | {"score": "accuracy", "is_pair": False}, "max_length": 12}
    save_model(HERE / name, recipe.convert(model), tokenizer_json=word_piece(WORDS), facts=facts)


def facts_of(folder: Path) -> dict[str, Any]:
    """What an artifact decodes to: hashes of its weights as float32, and logits of `TEXTS`."""
    artifact = open_artifact(folder)
    weights = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in artifact.dense_weights().items()}
    return {"weights": weights, "logits": Predictor(artifact).logits(TEXTS).tolist()}


if __name__ == "__main__":
    path = HERE / "expected.json"
    expected = json.loads(path.read_text()) if path.exists() else {}
    for given in sys.argv[1:]:
        make(given)
        expected[given] = facts_of(HERE / given)
    path.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
