"""What every test shares: one thread, no network, and the folders of real data where there are some."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tiny import bert_config, word_piece

# Two runs try the same examples, and a busy computer fails no test. To look for new ones:
# HYPOTHESIS_PROFILE=explore.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# Before torch or tokenizers are imported: one thread, so that results repeat and tests may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MULTIPRESS_CACHE", "")  # nothing is kept in the cache of whoever runs the tests


def _folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder `MULTIPRESS_DATA`; the test is skipped where there is none."""
    return _folder("MULTIPRESS_DATA")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder `MULTIPRESS_MODELS`; the test is skipped where there is none."""
    return _folder("MULTIPRESS_MODELS")


@pytest.fixture
def in_floats(monkeypatch):
    """Products as on a CPU that has no bfloat16, for tests against a reference in float32."""
    monkeypatch.setattr("multipress.precision.cpu_flags", frozenset)


@pytest.fixture(params=["floats", "bfloat16"])
def both_products(request, monkeypatch):
    """Products as on a CPU without bfloat16, and as on one that has it, whatever this one has."""
    flags = frozenset({"amx_bf16"} if request.param == "bfloat16" else ())
    monkeypatch.setattr("multipress.precision.cpu_flags", lambda: flags)


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """A WordPiece tokenizer of 64 words: w0 .. w58 and five special tokens."""
    return word_piece([f"w{index}" for index in range(59)])


@pytest.fixture(scope="session")
def tiny_bert():
    """Build a BERT classifier with so many outputs and weights far from zero."""

    def build(num_labels: int = 3, seed: int = 0):
        import torch
        from transformers import BertForSequenceClassification

        torch.manual_seed(seed)
        config = bert_config(59, num_labels=num_labels)
        model = BertForSequenceClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
        return model

    return build


@pytest.fixture(scope="session")
def write_tiny(tokenizer_json, tiny_bert):
    """Write an artifact of `tiny_bert` into a folder: `write_tiny(folder, bits=8, target="classes", ...)`."""
    import numpy as np

    from multipress.artifact import StoredTensor, round_floats, write_artifact

    graphs: dict[int, bytes] = {}

    def codes(weight: np.ndarray, bits: int, sparsity: float) -> StoredTensor:
        weight = np.where(np.abs(weight) <= np.quantile(np.abs(weight), sparsity), 0, weight)
        limit = 2 ** (bits - 1) - 1
        scale = (np.abs(weight).max(axis=1) / limit).astype(np.float16)
        rounded = np.rint(weight / scale.astype(np.float32)[:, None])
        return StoredTensor(np.clip(rounded, -limit, limit).astype(np.int8), scale, bits)

    def write(folder: Path, *, bits: int = 8, sparsity: float = 0.0, target: str = "classes", **facts):
        from multipress.models.graph import trace_graph

        labels = ["bad", "fair", "good"] if target == "classes" else []
        model = tiny_bert(len(labels) or 1)
        if len(labels) not in graphs:
            graphs[len(labels)] = trace_graph(model)
        tensors = {}
        for name, parameter in model.named_parameters():
            weight = parameter.detach().numpy()
            packed = bits <= 8 and weight.ndim == 2
            tensors[name] = codes(weight, bits, sparsity) if packed else round_floats(weight)
        metrics = ["accuracy"] if labels else ["pearson", "spearman"]
        task = {"name": "text", "target": target, "labels": labels, "metrics": metrics, "score": metrics[0]}
        stated = {
            "run_id": "0123456789ab",
            "task": {**task, "is_pair": False},
            "max_length": 16,
            "pruned": {},
        }
        quantization = {"bits": bits, "embedding_bits": bits, "activation_bits": None} if bits <= 8 else {}
        return write_artifact(
            folder,
            tensors=tensors,
            aliases={},
            config={"model_type": "bert", "vocab_size": 64, "max_position_embeddings": 24},
            tokenizer_json=tokenizer_json,
            graph=graphs[len(labels)],
            facts={**stated, "quantization": quantization, **facts},
        )

    return write


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a user would have it: a random two-layer BERT encoder that knows banking77's words."""
    import csv
    from collections import Counter

    import torch
    from transformers import BertModel

    source = Path(__file__).parents[1] / "src/multipress/tasks/data/banking77/train.csv"
    with source.open(newline="", encoding="utf-8") as file:
        counts = Counter(word for row in csv.DictReader(file) for word in row["text"].lower().split() if word.isalpha())
    words = [word for word, _ in counts.most_common(400)]
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    BertModel(bert_config(len(words), max_position_embeddings=40)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(word_piece(words), encoding="utf-8")
    return folder
