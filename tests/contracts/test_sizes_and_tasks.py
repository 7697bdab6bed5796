"""Every size of the paper and every task meets every method: random weights, few rows, one artifact each."""

import math

import pytest
import torch
from transformers import BertModel

from multipress.block_shapes import axis_of
from multipress.engines.job import Places
from multipress.engines.single import train_artifact
from multipress.methods import list_methods
from multipress.models.catalogue import BERT_SIZES
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec
from multipress.tasks import list_tasks
from multipress.tasks.glue import GLUE
from multipress.tasks.multi30k import MULTI30K
from tiny import bert_config, word_piece

METHODS = tuple(MethodSpec(name, {"sparsity": 0.5} if name == "pruning" else {}) for name in list_methods())
TRAINING = TrainingSpec(epochs=1, learning_rate=1e-3, batch_size=8, max_length=24)
WORDS = ["the", "a", "is", "not", "my", "card", "it", "to", "of", "and", "zzyzxq"]  # the last one is in no row


def write_model(folder, name):
    """A folder of the size's shape with random weights and a small vocabulary."""
    _, layers, hidden = BERT_SIZES[name]
    torch.manual_seed(0)
    config = bert_config(
        len(WORDS),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )
    BertModel(config).save_pretrained(folder / name)
    (folder / name / "tokenizer.json").write_text(word_piece(WORDS))
    return folder


def train_all_methods(models_dir, name, task, out, data_dir=None):
    """The artifact of a run under all methods, and its measurements by name; one step for the sizes that take long."""
    is_large = BERT_SIZES[name][2] >= 512
    data = DataSpec(task=task, max_train_rows=8 if is_large else 24, max_eval_rows=8 if is_large else 40)
    trained = train_artifact(RunSpec("train", name, data, TRAINING, METHODS), out, places=Places(data_dir, models_dir))
    return trained.artifact, {row.name: row.value for row in trained.measurements}


@pytest.mark.parametrize(
    "name",
    [name if size < 512 else pytest.param(name, marks=pytest.mark.slow) for name, (_, _, size) in BERT_SIZES.items()],
)
def test_every_size_trains_under_all_methods_and_is_stored(name, tmp_path):
    artifact, values = train_all_methods(write_model(tmp_path, name), name, "banking77", tmp_path / "out")
    records = artifact.manifest["tensors"]
    matrices = [name for name in records if axis_of(name) and name.endswith(".weight")]
    left = sum(math.prod(records[name]["shape"]) for name in matrices)
    _, layers, hidden = BERT_SIZES[name]
    assert left == 0.5 * layers * 12 * hidden**2  # half the heads and neurons
    assert sum(artifact.facts["pruned"].values()) == round(0.5 * left)
    assert values["weights_bytes"] < values["dense_bytes"] / 4
    assert 0 <= values["score"] <= 1


@pytest.mark.parametrize("task", sorted(GLUE))
def test_every_glue_task_trains_under_all_methods_and_is_scored(task, tmp_path, data_dir):
    artifact, values = train_all_methods(
        write_model(tmp_path, "bert-tiny"), "bert-tiny", task, tmp_path / "out", data_dir
    )
    assert artifact.facts["task"]["name"] == task
    assert set(GLUE[task].metrics) <= set(values)
    assert 0 <= values["score"] <= 1


def test_every_registered_task_is_met_here():
    assert set(list_tasks()) == {"banking77", *GLUE, *MULTI30K}  # translations meet every method in test_translators.py
