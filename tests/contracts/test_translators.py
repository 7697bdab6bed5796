"""Every subset of the methods that work on a translator trains, is stored and loads back; the others refuse."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from multipress.artifact import open_artifact
from multipress.batches import collate
from multipress.checkpoint import load_model, save_model
from multipress.errors import SettingError
from multipress.methods import Context, Step, get_method
from multipress.methods.distillation import distillation_loss
from multipress.models.encoder import encoder_linears, model_inputs
from multipress.models.translation import train_tokenizer
from multipress.recipe import Recipe
from multipress.spec import MethodSpec, TrainingSpec
from multipress.train import Saving, train
from tiny import parallel_rows, tiny_translator

TRAINING = TrainingSpec(epochs=2, learning_rate=3e-3, batch_tokens=120, label_smoothing=0.1)
SETTINGS = {
    "pruning": {"sparsity": 0.5, "updates": 3, "biases": True},
    "distillation": {"temperature": 1.0},
    "quantization": {},
}
SUBSETS = [subset for size in range(4) for subset in itertools.combinations(SETTINGS, size)]
every_subset = pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
FACTS = {
    "run_id": "0" * 12,
    "task": {"name": "tiny", "target": "text", "labels": [], "metrics": ["bleu", "chrf"], "score": "bleu"},
    "max_length": 16,
}


def recipe(subset):
    return Recipe.from_specs(tuple(MethodSpec(name, SETTINGS[name]) for name in subset))


def run(subset, **options):
    context = Context("text", teacher_model=tiny_translator(7, hidden=64))
    return train(tiny_translator(), parallel_rows(24), recipe(subset), TRAINING, context, **options)


@pytest.fixture(scope="module")
def trained():
    return {subset: run(subset) for subset in SUBSETS}


@torch.no_grad()
def logits(model):
    batch = collate(parallel_rows(6), np.arange(6))
    return model.eval()(**model_inputs(model, batch)).logits


@every_subset
def test_what_is_stored_is_what_was_trained(trained, tmp_path, subset):
    model = trained[subset]
    tokenizer = train_tokenizer(["a b c"], 300)
    artifact = save_model(tmp_path / "a", model, tokenizer_json=tokenizer, facts=FACTS)
    loaded = load_model(artifact.folder)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0.02)
    assert set(artifact.aliases.values()) == {"model.shared.weight"}
    assert loaded.lm_head.weight is loaded.model.decoder.embed_tokens.weight
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in tiny_translator().named_parameters()}
    bits = {record["bits"] for record in open_artifact(tmp_path / "a").manifest["tensors"].values()}
    assert (8 in bits) == ("quantization" in subset)
    assert json.loads(artifact.tokenizer_json()) == json.loads(tokenizer)


@pytest.mark.parametrize("subset", [subset for subset in SUBSETS if "pruning" in subset], ids="+".join)
def test_half_of_the_weights_and_biases_of_the_blocks_are_gone_and_no_other(trained, subset):
    model = trained[subset]
    linears = encoder_linears(model)
    zeros = sum(int((m.weight == 0).sum() + (m.bias == 0).sum()) for m in linears.values())
    total = sum(m.weight.numel() + m.bias.numel() for m in linears.values())
    counted = sum(m.num_pruned + m.num_pruned_biases for m in linears.values())
    assert counted == round(0.5 * total)
    assert zeros >= counted
    if subset == ("pruning",):
        assert zeros == counted
        assert torch.count_nonzero(model.model.shared.weight[1:]) == model.model.shared.weight[1:].numel()


def test_all_three_resumed_are_the_same_as_in_one_go(trained, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(step, total, loss):
        if step == 5:
            raise StoppedError

    subset = SUBSETS[-1]
    saving = Saving(tmp_path / "checkpoint", "run", every_steps=2)
    with pytest.raises(StoppedError):
        run(subset, saving=saving, on_step=stop)
    for one, other in zip(trained[subset].parameters(), run(subset, saving=saving).parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("in_floats")
def test_the_distance_to_the_teacher_is_that_of_each_word():
    teacher, student = tiny_translator(7, hidden=64).eval(), tiny_translator().eval()
    method = get_method("distillation").from_settings({"alpha": 1.0, "temperature": 2.0})
    method.prepare(student, Context("text", teacher_model=teacher))
    batch = collate(parallel_rows(5), np.arange(5))
    labels = batch.pop("labels")
    written = labels >= 0
    own = student(**model_inputs(student, batch)).logits[written]
    found = method.compute_loss(torch.tensor(9.0), Step(student, batch["rows"], None, own, 0.0, batch, written))
    words = []
    for row, target in zip(parallel_rows(5).encodings, parallel_rows(5).targets, strict=True):
        read = torch.tensor([[0, *target[:-1]]])
        pair = [
            model(input_ids=torch.tensor([row.ids]), decoder_input_ids=read).logits[0] for model in (student, teacher)
        ]
        words += [(a, b) for a, b in zip(*pair, strict=True)]
    expected = torch.stack([distillation_loss(a[None], b[None], "kl", 2.0) for a, b in words]).mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("distillation", {"loss": "mse"}, "classifiers"),
        ("distillation", {"augment": 2}, "classifiers"),
        ("distillation", {}, "teacher"),
        ("structured", {"heads": 0.5, "neurons": 0.5}, "translator"),
        ("vocabulary", {}, "tokenizer|output layer"),
    ],
)
def test_what_does_not_work_on_a_translator_is_refused(name, settings, message):
    with pytest.raises(SettingError, match=message):
        get_method(name).from_settings(settings).prepare(tiny_translator(), Context("text"))
