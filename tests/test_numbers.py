"""Numbers far from 0 or widely spread are learned as well as any others, by every method, and given as they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForSequenceClassification, BertModel

from multipress.checkpoint import stored_tensors
from multipress.engines.single import train_artifact
from multipress.errors import SettingError
from multipress.methods import Context
from multipress.numbers import Numbers
from multipress.recipe import Recipe
from multipress.runtime import Predictor
from multipress.runtime.tokenizer import Encoding
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec
from multipress.train import Rows, Saving, train
from tiny import bert_config

TRAINING = TrainingSpec(epochs=3, learning_rate=5e-3, batch_size=8, max_length=12, dropout=0.0)
# Far from 0, widely and narrowly spread. Powers of two, so that the standardized numbers are the same to the last bit.
MAPS = [(4096.0, 128.0), (0.0, 2.0**20), (0.5, 2.0**-10)]


def model():
    torch.manual_seed(0)
    config = bert_config(25, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config.num_labels = 1
    return BertForSequenceClassification(config)


def rows():
    random = np.random.default_rng(1)
    encodings = [Encoding([2, *random.integers(4, 30, 6).tolist(), 3], [0] * 8) for _ in range(48)]
    labels = np.array([(row.ids[1] - 16) / 8 for row in encodings])
    return Rows(encodings, labels.astype(np.float32), pad_id=0)


def trained(shift, factor, methods, tmp_path, kept=()):
    """A model trained on numbers that are `shift + factor` times the same ones, and its outputs (N,)."""
    data = rows()
    data = replace(data, labels=(shift + factor * data.labels).astype(np.float32))
    net = model()
    Numbers.of(data.labels).into(net)
    taught = torch.from_numpy(shift + factor * np.random.default_rng(2).normal(size=(48, 1))).float()
    recipe = Recipe.from_specs(methods)
    saving = Saving(tmp_path / f"{shift}-{factor}" / "checkpoint", "x", kept=kept)
    saving.path.parent.mkdir()
    context = Context("number", teacher_logits=taught if recipe.learns() else None)
    net = train(net, data, recipe, TRAINING, context, saving=saving)
    return net, outputs(net, data), saving


@torch.no_grad()
def outputs(net, data):
    ids = torch.tensor([row.ids for row in data.encodings])
    return net.eval()(input_ids=ids).logits[:, 0].double().numpy()


@pytest.mark.usefixtures("in_floats")
@pytest.mark.parametrize(("shift", "factor"), MAPS)
@pytest.mark.parametrize(
    "methods",
    [
        (),
        (MethodSpec("quantization", {}), MethodSpec("pruning", {"sparsity": 0.5})),
        (MethodSpec("quantization", {"learned_step": True, "bits": 4}),),
        (MethodSpec("quantization", {"bits": 4, "group": 16}),),
        (MethodSpec("quantization", {"rate": 3.0, "steps": "tensor"}),),
        (MethodSpec("distillation", {"hidden": 0.0, "alpha": 0.5}),),
    ],
    ids=["dense", "8 bits, pruned", "learned steps", "groups", "rate", "distilled"],
)
def test_a_shift_and_a_factor_of_the_labels_change_the_outputs_by_the_same(methods, shift, factor, tmp_path):
    _, plain, _ = trained(0.0, 1.0, methods, tmp_path)
    net, mapped, _ = trained(shift, factor, methods, tmp_path)
    if not any(method.settings.get("rate") for method in methods):  # which needs more steps than these
        assert np.corrcoef(plain, rows().labels)[0, 1] > 0.5
    np.testing.assert_allclose((mapped - shift) / factor, plain, atol=0.02)
    stored, _ = stored_tensors(net)
    assert stored["classifier.bias"].values.dtype == np.float32
    layer, weight = net.classifier.weight.detach(), stored["classifier.weight"]
    np.testing.assert_array_equal(weight.dense(), layer.half().float() if weight.bits == 16 else layer)


@pytest.mark.usefixtures("in_floats")
def test_weights_that_are_kept_give_the_numbers_too_and_go_on_as_they_were(tmp_path):
    (shift, factor), data = MAPS[0], rows()
    _, whole, saving = trained(shift, factor, (), tmp_path, kept=(1.0,))
    again = model()
    again.load_state_dict({**again.state_dict(), **load_file(saving.kept_path(1.0))})
    np.testing.assert_allclose(outputs(again, data), whole, rtol=1e-6)
    labels = Numbers.of((shift + factor * data.labels).astype(np.float32))
    labels.out_of(again)
    labels.into(again)
    np.testing.assert_allclose(outputs(again, data), whole, rtol=1e-6)


def test_equal_numbers_and_rows_without_one():
    assert Numbers.of(np.array([3.0, np.nan, 3.0], np.float32)) == Numbers(3.0, 1.0)
    assert Numbers.of(np.array([np.nan], np.float32)) == Numbers(0.0, 1.0)


def test_a_spread_that_integers_cannot_carry_is_refused(tmp_path):
    with pytest.raises(SettingError, match="Divide or multiply them by a power of ten"):
        trained(0.0, 2.0**40, (MethodSpec("quantization", {}),), tmp_path)


def test_a_price_is_learned_and_nothing_learned_is_told(tokenizer_json, tmp_path):
    torch.manual_seed(0)
    BertModel(bert_config(59)).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(tokenizer_json)
    chance = np.random.default_rng(0)
    for part in ("train", "dev"):
        lines = ["text,label"]
        for index in range(160):
            word = int(chance.integers(8))
            lines.append(f"w{word} w{int(chance.integers(8, 12))} n{part}{index},{50_000 + 1_000 * word}")
        (tmp_path / f"{part}.csv").write_text("\n".join(lines))
    data = DataSpec(train=str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv"), target="number")
    longer = replace(TRAINING, epochs=10, learning_rate=2e-3)
    spec = RunSpec("train", str(tmp_path / "model"), data, longer, (MethodSpec("quantization", {}),))
    done = train_artifact(spec, tmp_path / "learned")
    predicted = Predictor(tmp_path / "learned").logits(["w0 w9", "w7 w9"])[:, 0]
    assert 48_000 < predicted[0] < predicted[1] < 60_000
    assert not any("nearly one number" in note for note in done.notes)
    for part, text in (("train", "w1 w2"), ("dev", "w3")):
        lines = ["text,label", *(f"{text},{index}" for index in range(40))]
        (tmp_path / f"{part}.csv").write_text("\n".join(lines))
    done = train_artifact(spec, tmp_path / "none")
    assert any("nearly one number for every row" in note for note in done.notes)
