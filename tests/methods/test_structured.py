"""Structured pruning: what leaves, when, and that the smaller model is the one that was trained, in every family."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import multipress as mp
from multipress import manifest
from multipress.artifact import open_artifact
from multipress.block_shapes import axis_of, cut, padded, read_block_shapes
from multipress.checkpoint import load_model, save_model
from multipress.errors import ArtifactError, SettingError
from multipress.export import Export, export_artifact
from multipress.export.write import Rows
from multipress.methods import Context
from multipress.methods.pruning import Pruning
from multipress.methods.quantization import Quantization
from multipress.methods.structured import Structured
from multipress.models.families import FAMILIES
from multipress.models.structure import block_shapes_of, shaped_like
from multipress.recipe import Recipe
from multipress.runtime import Predictor
from tiny import family_config, word_piece

WORDS = [f"word{number}" for number in range(59)]
TEXTS = ["word1 word2 word3", "", "word5", " ".join(WORDS[:12]), "word7 word9 word58 word1"]
every_family = pytest.mark.parametrize("family", list(FAMILIES))
FACTS = {
    "run_id": "0123456789ab",
    "task": {
        "name": "t",
        "target": "classes",
        "labels": ["bad", "fair", "good"],
        "metrics": ["accuracy"],
        "score": "accuracy",
    },
    "max_length": 16,
}


def model_of(family: str = "bert", **changes: int) -> nn.Module:
    torch.manual_seed(0)
    changes = {"num_attention_heads": 4, **changes} if family != "distilbert" else {"n_heads": 4, **changes}
    model = FAMILIES[family].classifier(family_config(family, 59, num_labels=3, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def ids_of(rows: int = 4) -> torch.Tensor:
    return torch.randint(5, 64, (rows, 7), generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, recipe: Recipe, optimizer: torch.optim.Optimizer, progress: float) -> None:
    logits = model(input_ids=ids_of()).logits
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    optimizer.zero_grad()
    recipe.on_step_end(model, progress)


def trained(model: nn.Module, *methods, steps: int = 6) -> tuple[nn.Module, Recipe]:
    """A model after a few steps, before it is converted."""
    recipe = Recipe(list(methods))
    recipe.prepare(model, Context(seed=3, num_steps=steps))
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for number in range(steps):
        step(model, recipe, optimizer, (number + 1) / steps)
    return model, recipe


@every_family
def test_the_cut_model_computes_what_was_trained_with_fewer_heads_neurons_and_blocks(family):
    method = Structured(heads=0.5, neurons=0.25, layers=0.34)
    model, recipe = trained(model_of(family), method)
    before = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        expected = model(input_ids=ids_of()).logits
        small = recipe.convert(model)
        torch.testing.assert_close(small(input_ids=ids_of()).logits, expected, atol=1e-5, rtol=0)
    shapes = block_shapes_of(small)
    assert len(shapes) == small.config.num_hidden_layers == 2
    assert sum(heads for heads, _ in shapes) == 4
    assert sum(neurons for _, neurons in shapes) == 96
    assert small.num_dropped == before - sum(parameter.numel() for parameter in small.parameters())
    assert not [name for name, _ in small.named_buffers() if "leav" in name or "importance" in name]


@pytest.mark.parametrize(("family", "bits"), [("bert", None), *((family, 8) for family in FAMILIES)])
def test_a_cut_model_is_stored_opened_exported_and_held_by_stock_classes(family, bits, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    import multipress.huggingface  # noqa: F401

    methods = [Structured(heads=0.4, neurons=0.3, layers=0.34)] + ([Quantization(bits=bits)] if bits else [])
    model, recipe = trained(model_of(family), *methods, steps=2)
    artifact = save_model(tmp_path / "a", recipe.convert(model), tokenizer_json=word_piece(WORDS), facts=FACTS)
    logits = Predictor(artifact).logits(TEXTS)
    assert block_shapes_of(mp.load(artifact.folder)) == read_block_shapes(artifact.config)
    stock = AutoModelForSequenceClassification.from_pretrained(artifact.folder)
    inputs = AutoTokenizer.from_pretrained(artifact.folder)(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        np.testing.assert_allclose(stock(**inputs).logits.numpy(), logits, atol=1e-4)
    stock.save_pretrained(tmp_path / "twin")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "twin")
    assert torch.equal(again(**inputs).logits, stock(**inputs).logits)
    for export in (Export("safetensors", "fp32"), Export("onnx", "fp32")):
        parity = export_artifact(artifact, export, tmp_path / "x", Rows("rows", TEXTS))["models"][export.file]["parity"]
        assert parity["agreement"] == 1
    rounded = Predictor(artifact, precision="int8").logits(TEXTS)
    assert np.abs(rounded - logits).max() < 0.05 * np.abs(logits).max()
    assert (sum(np.prod(r["shape"]) for r in artifact.manifest["tensors"].values()) + artifact.facts["dropped"]) == sum(
        parameter.numel() for parameter in model_of(family).parameters()
    )


def test_importance_is_the_gradient_of_a_gate_row_by_row():
    model = model_of()
    method = Structured()
    method.prepare(model, Context())
    block = model.bert.encoder.layer[1]
    rows, labels = ids_of(), torch.tensor([0, 1, 2, 0])
    nn.functional.cross_entropy(model(input_ids=rows).logits, labels, reduction="sum").backward()
    expected = torch.zeros(4)
    gate = torch.ones(4, requires_grad=True)
    wide = lambda _, inputs: (inputs[0] * gate.repeat_interleave(8),)
    handle = block.attention.output.dense.register_forward_pre_hook(wide)
    for row, label in zip(rows, labels, strict=True):
        loss = nn.functional.cross_entropy(model(input_ids=row[None]).logits, label[None])
        expected += torch.autograd.grad(loss, gate)[0].abs()
    handle.remove()
    torch.testing.assert_close(block.heads_importance, 0.02 * expected, atol=1e-6, rtol=1e-4)


def test_heads_that_matter_least_leave_first_and_stay_zero():
    model = model_of()
    attention = model.bert.encoder.layer[0].attention
    with torch.no_grad():
        attention.output.dense.weight[:, 8:16] = 0  # the second head of the first block says nothing
    method = Structured(heads=0.25, neurons=0.0, start=0.0, end=1.0)
    model, _ = trained(model, method, steps=12)
    leaving = [block.heads_leave for block in model.bert.encoder.layer]
    assert bool(leaving[0][1])
    assert sum(int(mask.sum()) for mask in leaving) == 3
    value, out = attention.self.value, attention.output.dense
    assert not value.weight[8:16].any()
    assert not value.bias[8:16].any()
    assert not out.weight[:, 8:16].any()


def test_parts_leave_a_few_at_a_time():
    model = model_of()
    method = Structured(heads=0.5, neurons=0.5, start=0.2, end=0.8, updates=4)
    recipe = Recipe([method])
    recipe.prepare(model, Context(num_steps=10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    gone = []
    for number in range(10):
        step(model, recipe, optimizer, (number + 1) / 10)
        gone.append(sum(int(block.neurons_leave.sum()) for block in model.bert.encoder.layer))
    assert gone[1] == 0
    assert gone == sorted(gone)
    assert len(set(gone)) == 5
    assert gone[7] == gone[-1] == 96


def test_shares_of_pruning_are_of_what_stays():
    methods = [Structured(end=0.9), Pruning(sparsity=0.5, end=0.5, updates=2), Quantization(rate=2.0)]
    model, recipe = trained(model_of(), *methods, steps=8)
    model = recipe.convert(model)
    modules = [module for module in model.modules() if hasattr(module, "num_pruned")]
    assert sum(m.num_pruned for m in modules) == round(0.5 * sum(m.weight.numel() for m in modules))
    assert all(int((m.weight == 0).sum()) >= m.num_pruned for m in modules)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 0.9}, "each needs one"),
        ({"layers": 0.9}, "first and the last stay"),
        ({"heads": 0.01, "neurons": 0.001}, "not even one"),
        ({"speedup": 2.0}, "not turned into shares"),
    ],
)
def test_what_cannot_be_removed_is_said_before_the_training(settings, message):
    with pytest.raises(SettingError, match=message):
        Structured(**settings).prepare(model_of(), Context())


@pytest.mark.parametrize(
    "settings", [{"heads": 0.0, "neurons": 0.0}, {"speedup": 1.0}, {"start": 0.7}, {"importance": "size"}]
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(SettingError):
        Structured(**settings)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    model, recipe = trained(model_of(), Structured(), steps=2)
    folder = tmp_path_factory.mktemp("cut") / "a"
    return save_model(folder, recipe.convert(model), tokenizer_json=word_piece(WORDS), facts=FACTS)


def test_an_older_reader_refuses_it_and_says_what_to_do(artifact, monkeypatch):
    monkeypatch.setattr(manifest, "TOKENIZER", {2: "tokenizer.json", 3: "tokenizer.bin"})
    with pytest.raises(ArtifactError, match="Update multipress"):
        open_artifact(artifact.folder)


def test_models_that_lost_nothing_say_nothing_of_shapes(tmp_path):
    whole = save_model(tmp_path / "a", model_of(), tokenizer_json=word_piece(WORDS), facts=FACTS)
    assert "block_shapes" not in json.dumps(whole.config)


@pytest.mark.parametrize(
    "shapes",
    [[], [[2, 32]], "x", [[0, 32]] * 3, [[5, 32]] * 3, [[2, 65]] * 3, [[2.0, 32]] * 3, [[2]] * 3, [[2, 31]] * 3],
)
def test_shapes_that_cannot_be_are_refused(artifact, shapes, monkeypatch):
    config = {
        **artifact.config,
        "quantization_config": {**artifact.config["quantization_config"], "block_shapes": shapes},
    }
    monkeypatch.setattr("multipress.checkpoint.open_artifact", lambda _: SimpleArtifact(artifact, config))
    with pytest.raises(ArtifactError, match=r"cannot be|do not fit"):
        load_model(artifact.folder)


class SimpleArtifact:
    """An artifact that says something else in its config."""

    def __init__(self, artifact, config):
        self.config, self.facts, self.manifest, self.aliases = config, artifact.facts, artifact.manifest, {}


@every_family
def test_padding_adds_zeros_that_cutting_takes_away(family, tmp_path):
    model, recipe = trained(model_of(family), Structured(neurons=0.3), steps=2)
    artifact = save_model(tmp_path / "a", recipe.convert(model), tokenizer_json=word_piece(WORDS), facts=FACTS)
    weights = artifact.dense_weights()
    whole = padded(weights, artifact.config)
    assert {name: tuple(w.shape) for name, w in whole.items()} == {
        name: tuple(w.shape) for name, w in model_of(family).state_dict().items()
    }
    again = cut(whole, artifact.config)
    for name, weight in weights.items():
        np.testing.assert_array_equal(again[name], weight)
        assert np.abs(whole[name]).sum() == pytest.approx(np.abs(weight).sum(), rel=1e-5)
        assert (axis_of(name) is not None) == (whole[name].shape != weight.shape or axis_of(name) is not None)


@every_family
def test_a_later_stage_begins_with_the_smaller_shapes(family, tmp_path):
    model, recipe = trained(model_of(family), Structured(layers=0.34), steps=2)
    artifact = save_model(tmp_path / "a", recipe.convert(model), tokenizer_json=word_piece(WORDS), facts=FACTS)
    start = shaped_like(model_of(family), artifact.config, read_block_shapes(artifact.config))
    weights = artifact.dense_weights()
    assert {name: tuple(p.shape) for name, p in start.named_parameters()} == {n: w.shape for n, w in weights.items()}
    with torch.no_grad():
        for name, parameter in start.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
        torch.testing.assert_close(
            start(input_ids=ids_of()).logits, load_model(artifact.folder)(input_ids=ids_of()).logits
        )
