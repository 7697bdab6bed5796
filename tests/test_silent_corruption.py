"""The silent corruption this field is known for, row by row of the table in docs/reliability.md.

Partial loads are in tests/models/test_pretrained.py (`fewer_layers`, `every_single_missing_tensor`), damaged
checkpoints in tests/test_train.py, identities part by part in tests/test_spec.py; this file has the rest and one of
each.
"""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, BertModel

from multipress.artifact import open_artifact
from multipress.checkpoint import load_model, save_model
from multipress.engines.execute import Executor
from multipress.engines.identity import THREADS, artifact_sha256, identity_facts, identity_of
from multipress.engines.job import Places
from multipress.errors import ModelError
from multipress.methods import Context
from multipress.methods.pruning import Pruning
from multipress.methods.quantization import Quantization
from multipress.models import load_pretrained
from multipress.models.pretrained import identify
from multipress.runtime import Predictor
from multipress.spec import DataSpec, MethodSpec, RunSpec
from multipress.store import Store
from multipress.tasks import load_task
from tiny import bert_config, word_piece

WORDS = [f"word{i}" for i in range(60)]
LABELS = ["a", "b", "c"]


def facts(labels=LABELS):
    task = {
        "name": "tiny",
        "target": "classes",
        "labels": list(labels),
        "metrics": ["accuracy"],
        "score": "accuracy",
    }
    return {"run_id": "0" * 12, "task": task, "max_length": 16}


def model(layers=2, **config):
    torch.manual_seed(0)
    shape = bert_config(len(WORDS), num_hidden_layers=layers, num_labels=3, **config)
    net = BertForSequenceClassification(shape).eval()
    with torch.no_grad():  # spread the logits, so that an error could flip a label
        net.classifier.weight.mul_(50)
    return net


def texts(count=40, longest=12):
    random = np.random.default_rng(0)
    return [" ".join(f"word{i}" for i in random.integers(0, 60, random.integers(1, longest))) for _ in range(count)]


def store_model(folder, *methods, net=None):
    net = net or model()
    for method in methods:
        method.prepare(net, Context())
    for method in methods:
        method.on_step_end(net, 1.0)
    for method in reversed(methods):
        method.convert(net)
    return save_model(folder, net, tokenizer_json=word_piece(WORDS), facts=facts())


def test_partial_load_three_layers_in_the_config_one_in_the_file(tmp_path):
    net = BertModel(bert_config(len(WORDS), num_hidden_layers=3))
    net.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(word_piece(WORDS))
    path = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "layer.1." not in k and "layer.2." not in k}, path)
    with pytest.raises(ModelError, match=r"missing: bert\.encoder\.layer\.1"):
        load_pretrained(str(tmp_path), label_names=("a", "b"), seed=0)


@pytest.mark.parametrize("methods", [(Pruning(sparsity=0.5),), (Pruning(sparsity=0.5), Quantization(bits=4))])
def test_a_mask_is_not_lost_by_saving_and_loading(tmp_path, methods):
    net = model()
    store_model(tmp_path / "artifact", *methods, net=net)
    before = {name: int((p == 0).sum()) for name, p in net.named_parameters()}
    after = {name: int((p == 0).sum()) for name, p in load_model(tmp_path / "artifact").named_parameters()}
    assert after == before
    ranked = [name for name in before if ".encoder." in name and name.endswith("weight") and "LayerNorm" not in name]
    assert sum(before[name] for name in ranked) >= 0.5 * sum(net.get_parameter(name).numel() for name in ranked)


def test_pruned_weights_stay_zero_under_momentum():
    net = model().train()
    method = Pruning(sparsity=0.5, start=0.0, end=0.1, updates=1)
    method.prepare(net, Context())
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    zeros = []
    for step in range(12):
        net(input_ids=torch.randint(4, 60, (4, 8))).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        method.on_step_end(net, (step + 1) / 12)
        zeros.append({name: (p == 0) for name, p in net.named_parameters()})
    survivors = [int((zeros[1][name] & zeros[-1][name]).sum()) for name in zeros[1]]
    assert survivors == [int(mask.sum()) for mask in zeros[1].values()]
    assert sum(survivors) > 5000


@pytest.mark.parametrize("settings", [{}, {"activation_bits": 8}, {"activation_bits": 8, "activation_scale": "static"}])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_predictions_do_not_depend_on_batch_mates_or_padding(tmp_path, settings, precision):
    net, method = model(), Quantization(bits=8, **settings)
    method.prepare(net, Context())
    net.train()(torch.randint(5, 20, (4, 10)))  # what fixed scales come from
    method.convert(net)
    save_model(tmp_path / "artifact", net.eval(), tokenizer_json=word_piece(WORDS), facts=facts())
    assert open_artifact(tmp_path / "artifact").has_static_activations == ("activation_scale" in settings)
    predictor = Predictor(tmp_path / "artifact", precision=precision)
    rows = texts()
    together = predictor.logits(rows)
    alone = np.concatenate([predictor.logits([row]) for row in rows])
    with_long = np.concatenate([predictor.logits([row, " ".join(["word1"] * 13)])[:1] for row in rows])
    for other in (alone, with_long):
        np.testing.assert_allclose(other, together, atol=1e-4)
        assert np.array_equal(other.argmax(1), together.argmax(1))


def test_a_head_with_swapped_labels_is_never_used_as_it_is(tmp_path):
    net = model(id2label={0: "b", 1: "a", 2: "c"}, label2id={"b": 0, "a": 1, "c": 2})
    net.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(word_piece(WORDS))
    loaded = load_pretrained(str(tmp_path), label_names=tuple(LABELS), seed=0)
    assert loaded.new_head
    assert not torch.equal(loaded.model.classifier.weight, net.classifier.weight)


def test_a_teacher_with_swapped_labels_is_refused(tmp_path):
    store_model(tmp_path / "artifact")
    for name in ("train.csv", "dev.csv"):
        (tmp_path / name).write_text(f"text,label\nword1 {name},a\nword2 {name},b\nword3 {name},d\n")
    data = DataSpec(train=str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv"))
    spec = RunSpec("label", str(tmp_path / "artifact"), data)
    run_id = identity_of(spec, model_sha256=artifact_sha256(tmp_path / "artifact"), data_sha256=load_task(data).sha256)
    store = Store(tmp_path / "runs")
    store.check_writable()
    store.register(run_id, spec.to_json())
    Executor(store, Places()).execute(run_id, spec)
    assert store.run(run_id).state == "refused"
    assert "Names and order" in store.run(run_id).why


def test_logits_of_another_teacher_or_of_other_rows_have_another_name():
    label = RunSpec("label", "minilm-l6", DataSpec(task="banking77"), teacher="0" * 12)
    ids = set()
    for teacher, rows, data_sha256 in (
        ("0" * 12, 0, "x"),
        ("1" * 12, 0, "x"),
        ("0" * 12, 100, "x"),
        ("0" * 12, 0, "y"),
    ):
        spec = replace(label, teacher=teacher, data=DataSpec(task="banking77", max_train_rows=rows))
        ids.add(identity_of(spec, model_sha256="m", data_sha256=data_sha256))
    assert len(ids) == 4


@pytest.mark.slow
def test_threads_are_a_part_of_the_identity_and_runs_use_that_many(tmp_path):
    spec = RunSpec("train", "minilm-l3", DataSpec(task="banking77"))
    assert identity_facts(spec, model_sha256="m", data_sha256="d")["threads"] == THREADS
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from multipress.engines.execute import Executor\n"
        "from multipress.engines.job import Places; from multipress.store import Store\n"
        "torch.set_num_threads(2); Executor(Store(Path(sys.argv[1])), Places()); print(torch.get_num_threads())"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(result.stdout) == THREADS


def test_a_teachers_logits_of_another_number_of_rows_fail_the_run(tiny_folder, tmp_path):
    store = Store(tmp_path / "runs")
    store.check_writable()
    label, data = "a" * 12, DataSpec(task="banking77", max_train_rows=8)
    store.register(label, RunSpec("label", str(tiny_folder), data).to_json())
    attempt = store.claim(label)
    save_file({"logits": torch.zeros(3, 77)}, attempt.folder / "logits.safetensors")
    attempt.commit()
    spec = RunSpec("train", str(tiny_folder), data, methods=(MethodSpec("distillation"),), teacher=label)
    hashes = {"model_sha256": identify(str(tiny_folder)).sha256, "data_sha256": load_task(data).sha256}
    student = identity_of(spec, **hashes)
    store.register(student, spec.to_json())
    Executor(store, Places()).execute(student, spec)
    assert store.run(student).state == "failed"
    assert "3 rows, not of 8" in store.run(student).why
