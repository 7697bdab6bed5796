"""What every method and every subset of methods must keep; a new method is tested by being there."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from multipress.artifact import open_artifact
from multipress.checkpoint import load_model, save_model, stored_tensors
from multipress.cli.list import CARD_SECTIONS
from multipress.errors import SettingError, SpecError
from multipress.methods import Context, Method, Stage, Step, build_method, get_card, get_method, list_methods
from multipress.recipe import Recipe
from multipress.runtime import Predictor
from multipress.train import Saving, collate

NAMES = list_methods()
SUBSETS = [subset for size in range(len(NAMES) + 1) for subset in itertools.combinations(NAMES, size)]
every_method = pytest.mark.parametrize("name", NAMES)
every_subset = pytest.mark.parametrize("subset", SUBSETS, ids="+".join)


@pytest.fixture(scope="module")
def trained(tiny):
    """A converted model of every subset."""
    return {subset: tiny.tiny_train(tiny.tiny_recipe(subset)) for subset in SUBSETS}


@pytest.fixture(scope="module")
def artifacts(tiny, trained, tmp_path_factory):
    """Every converted model stored as an artifact."""
    root = tmp_path_factory.mktemp("artifacts")
    return {
        subset: save_model(
            root / ("+".join(subset) or "dense"),
            model,
            tokenizer_json=tiny.tiny_tokenizer(),
            facts=tiny.FACTS,
        )
        for subset, model in trained.items()
    }


@every_method
def test_a_method_is_built_without_arguments(name):
    method = get_method(name)()
    assert method.name == name
    assert isinstance(method.stage, Stage)


@every_method
def test_an_unknown_setting_is_refused_and_the_known_are_named(name):
    with pytest.raises(SettingError) as error:
        build_method(name, {"no_such_setting": 1})
    assert all(setting in str(error.value) for setting in get_method(name)().settings())


@every_method
@pytest.mark.parametrize("wrong", [[], {}, "x y z", float("nan")])
def test_a_setting_of_the_wrong_kind_is_refused(name, wrong):
    numbers = [key for key, value in get_method(name)().settings().items() if isinstance(value, (int, float))]
    with pytest.raises(SettingError):
        build_method(name, {numbers[0]: wrong})


@every_method
def test_settings_given_as_texts_are_read(name):
    settings = get_method(name)().settings()
    assert build_method(name, {key: str(value) for key, value in settings.items()}).settings() == settings


@every_method
def test_the_card_has_all_sections_and_all_settings(name):
    card = get_card(name)
    places = [card.find(f"\n{section}:\n") for section in CARD_SECTIONS]
    assert -1 not in places
    assert places == sorted(places)
    settings = card[places[2] : places[3]]
    assert all(f"    {setting}: " in settings for setting in get_method(name)().settings())


def test_an_unknown_method_is_refused_and_the_known_are_named():
    with pytest.raises(SpecError, match=", ".join(NAMES)):
        build_method("no_such_method", {})


def test_methods_are_sorted_by_stage_and_twice_the_same_is_refused():
    methods = [get_method(name)() for name in reversed(NAMES)]
    assert [m.stage for m in Recipe(methods).methods] == sorted(m.stage for m in methods)
    with pytest.raises(SettingError, match="twice"):
        Recipe([get_method(NAMES[0])(), get_method(NAMES[0])()])


def test_two_methods_of_one_stage_are_refused_unless_both_are_objectives():
    class Other(Method):
        name = "other"
        stage = Stage.SPARSITY

    class Goal(Method):
        name = "goal"
        stage = Stage.OBJECTIVE

    with pytest.raises(SettingError, match="sparsity"):
        Recipe([Other(), get_method("pruning")()])
    assert len(Recipe([Goal(), get_method("distillation")()]).methods) == 2


@every_subset
def test_every_subset_trains_and_learns(tiny, trained, subset):
    labels = torch.from_numpy(tiny.tiny_rows().labels)
    before = nn.functional.cross_entropy(tiny.tiny_logits(tiny.tiny_model().eval()), labels)
    after = nn.functional.cross_entropy(tiny.tiny_logits(trained[subset]), labels)
    assert after < before


@every_subset
def test_convert_leaves_a_plain_model_of_transformers(tiny, trained, subset):
    plain = tiny.tiny_model()
    names = {name for name, _ in plain.named_parameters()}
    assert {name for name, _ in trained[subset].named_parameters()} == names
    assert trained[subset].state_dict().keys() == plain.state_dict().keys()


@every_subset
def test_convert_keeps_the_function(tiny, subset):
    seen = {}

    class Last(Method):
        name = "zzz_last"
        stage = Stage.OBJECTIVE

        def convert(self, model):
            # Called first, because conversion runs in reverse: the model as the training left it.
            seen["logits"] = tiny.tiny_logits(model)
            return model

    recipe = tiny.tiny_recipe(subset)
    recipe = Recipe([*recipe.methods, Last()])
    model = tiny.tiny_train(recipe)
    torch.testing.assert_close(tiny.tiny_logits(model), seen["logits"], atol=1e-5, rtol=0)


@every_subset
def test_same_seed_same_weights_and_another_seed_others(tiny, trained, subset):
    again = tiny.tiny_train(tiny.tiny_recipe(subset)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in trained[subset].state_dict().items())
    if len(subset) < 2:
        other = tiny.tiny_train(tiny.tiny_recipe(subset), seed=1).state_dict()
        assert any(not torch.equal(value, other[key]) for key, value in trained[subset].state_dict().items())


# Early, in the middle and late for each method alone and all together, one of the three for every other subset.
STOPS = [
    (subset, stop)
    for number, subset in enumerate(SUBSETS)
    for place, stop in enumerate([1, 7, 17])
    if len(subset) in (1, len(NAMES)) or number % 3 == place
]


@pytest.mark.parametrize(("subset", "stop_after"), STOPS)
def test_interrupted_and_resumed_equals_uninterrupted(tiny, trained, subset, stop_after, tmp_path):
    saving = Saving(tmp_path / "checkpoint.safetensors", "run", every_steps=1)

    def stop(done, total, loss):
        if done == stop_after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.tiny_train(tiny.tiny_recipe(subset), saving=saving, on_step=stop)
    steps = []
    resumed = tiny.tiny_train(
        tiny.tiny_recipe(subset), saving=saving, on_step=lambda done, total, loss: steps.append(done)
    ).state_dict()
    assert steps[0] == stop_after + 1
    assert all(torch.equal(value, resumed[key]) for key, value in trained[subset].state_dict().items())


@pytest.mark.parametrize(
    "settings",
    [
        {"distillation": {"hidden": 1.0}},  # of another width: a matrix is learned
        {"distillation": {"hidden": 1.0, "states": "token"}},
        {"quantization": {"bits": 4, "learned_step": True}},
        {"quantization": {"bits": 4, "learned_step": True, "start": 0.5}},
        {"quantization": {"activation_bits": 8, "activation_scale": "static"}},
        {"quantization": {"rate_weight": 0.1}},
        {"quantization": {"rate_weight": 0.1, "steps": "tensor", "start": 0.25}},
        {"pruning": {"sparsity": 0.5, "updates": 3, "embeddings": True}},
        {"structured": {"neurons": 0.3, "updates": 3, "end": 0.9}, "quantization": {"rate": 2.0}},
    ],
    ids=str,
)
def test_what_a_setting_adds_to_the_model_is_resumed_and_then_gone(tiny, tmp_path, settings):
    """All methods together, one of them with settings that keep a state of their own."""
    recipe = lambda: tiny.tiny_recipe(list_methods(), **settings)
    whole = tiny.tiny_train(recipe())
    assert set(dict(whole.named_parameters())) == set(dict(tiny.tiny_model().named_parameters()))
    saving = Saving(tmp_path / "checkpoint.safetensors", "run", every_steps=1)

    def stop(done, total, loss):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.tiny_train(recipe(), saving=saving, on_step=stop)
    resumed = tiny.tiny_train(recipe(), saving=saving).state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.state_dict().items())


def test_groups_of_low_bits_are_stored_and_loaded_and_dropped_words_take_theirs_along(tiny, tmp_path):
    """With all methods that groups work with; what runs in integers rounds them once more."""
    methods = [name for name in NAMES if name != "structured"]
    model = tiny.tiny_train(tiny.tiny_recipe(methods, quantization={"bits": 3, "group": 16}))
    artifact = save_model(tmp_path / "a", model, tokenizer_json=tiny.tiny_tokenizer(), facts=tiny.FACTS)
    stored = open_artifact(artifact.folder).tensors()
    grouped = {name for name, tensor in stored.items() if tensor.has_groups}
    assert any("word_embeddings" in name for name in grouped)
    assert all(stored[name].scale.shape[1] * 16 == stored[name].values.shape[1] for name in grouped)
    loaded = load_model(artifact.folder)
    assert all(torch.equal(loaded.get_parameter(name), model.get_parameter(name)) for name in grouped)
    texts = [" ".join(tiny.WORDS[i - len(tiny.SPECIAL)] for i in row.ids[1:-1]) for row in tiny.tiny_rows().encodings]
    logits = Predictor(artifact.folder).logits(texts)
    np.testing.assert_allclose(logits, tiny.tiny_logits(loaded).numpy(), atol=1e-4)
    in_integers = Predictor(artifact.folder, precision="int8").logits(texts)
    np.testing.assert_allclose(in_integers, logits, atol=0.05 * np.abs(logits).max())


def test_groups_that_cut_no_row_are_refused(tiny):
    with pytest.raises(SettingError, match="cuts no row of this model in two"):
        tiny.tiny_train(tiny.tiny_recipe(["quantization"], quantization={"bits": 3, "group": 128}))


def test_groups_and_structured_are_refused_together(tiny):
    with pytest.raises(SettingError, match="not tested together"):
        tiny.tiny_train(tiny.tiny_recipe(["structured", "quantization"], quantization={"bits": 3, "group": 16}))


@pytest.mark.parametrize("scale", ["dynamic", "static"])
@pytest.mark.parametrize("others", [subset for subset in SUBSETS if "quantization" not in subset], ids="+".join)
def test_rounded_activations_are_stored_with_every_subset_and_run_in_integers(tiny, tmp_path, others, scale):
    settings = {"quantization": {"activation_bits": 8, "activation_scale": scale}}
    model = tiny.tiny_train(tiny.tiny_recipe((*others, "quantization"), **settings))
    artifact = save_model(tmp_path / "a", model, tokenizer_json=tiny.tiny_tokenizer(), facts=tiny.FACTS)
    assert artifact.has_static_activations == (scale == "static")
    texts = [" ".join(tiny.WORDS[i - len(tiny.SPECIAL)] for i in row.ids[1:-1]) for row in tiny.tiny_rows().encodings]
    wanted = tiny.tiny_logits(load_model(artifact.folder)).numpy()
    in_floats = Predictor(artifact.folder).logits(texts)
    in_integers = Predictor(artifact.folder, precision="int8").logits(texts)
    # A value at the border of two codes may fall to either side: a step of one activation, seen in few rows.
    step = 0.05 * np.abs(wanted).max()
    for found in (in_floats, in_integers):
        assert np.mean(np.abs(found - wanted).max(axis=1) < 1e-4) > 0.9
        np.testing.assert_allclose(found, wanted, atol=step)


@every_subset
def test_stored_and_loaded_gives_the_same_outputs_and_zeros(tiny, trained, artifacts, subset):
    model, artifact = trained[subset], artifacts[subset]
    loaded = load_model(artifact.folder)
    with torch.no_grad():  # what is not quantized is stored in 16 bits
        for name, parameter in model.named_parameters():
            if not any(name == f"{n}.weight" and hasattr(m, "weight_codes") for n, m in model.named_modules()):
                parameter.copy_(parameter.half().float())
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    predictor = Predictor(artifact.folder)
    texts = [" ".join(tiny.WORDS[i - len(tiny.SPECIAL)] for i in row.ids[1:-1]) for row in tiny.tiny_rows().encodings]
    np.testing.assert_allclose(predictor.logits(texts), tiny.tiny_logits(loaded).numpy(), atol=1e-4)
    zeros = {name: int((value == 0).sum()) for name, value in model.named_parameters()}
    records = open_artifact(artifact.folder).manifest["tensors"]
    for name, record in records.items():
        assert int(np.prod(record["shape"])) - record["nonzeros"] == zeros[name], name


def test_a_fresh_process_without_torch_gives_the_same_logits(tiny, artifacts):
    code = (
        "import json, sys\n"
        "from multipress.runtime import Predictor\n"
        "folders, texts = json.load(sys.stdin)\n"
        "print(json.dumps([Predictor(folder).logits(texts).tolist() for folder in folders]))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    folders = [str(artifact.folder) for artifact in artifacts.values()]
    texts = [" ".join(tiny.WORDS[i - len(tiny.SPECIAL)] for i in row.ids[1:-1]) for row in tiny.tiny_rows().encodings]
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([folders, texts]),
        capture_output=True,
        text=True,
        check=True,
    )
    for folder, logits in zip(folders, json.loads(result.stdout), strict=True):
        assert np.array_equal(np.array(logits, dtype=np.float32), Predictor(folder).logits(texts))


@pytest.mark.parametrize("bits", [8, 6, 4, 3, 2])
def test_pruned_zeros_survive_quantization(tiny, bits):
    settings = {"quantization": {"bits": bits}, "pruning": {"sparsity": 0.5, "updates": 3}}
    model = tiny.tiny_train(tiny.tiny_recipe(("pruning", "quantization"), **settings))
    modules = [module for module in model.modules() if hasattr(module, "num_pruned")]
    total = sum(module.weight.numel() for module in modules)
    assert sum(module.num_pruned for module in modules) == round(0.5 * total)
    for module in modules:
        assert int((module.weight == 0).sum()) >= module.num_pruned
        assert torch.equal(module.weight == 0, module.weight_codes == 0)


@every_subset
def test_tied_weights_stay_tied_and_are_stored_once(tiny, subset):
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    model = BertForMaskedLM(tiny.tiny_model().config)
    tied = model.cls.predictions.decoder
    assert tied.weight is model.bert.embeddings.word_embeddings.weight
    recipe = tiny.tiny_recipe(subset)
    if "vocabulary" in subset:  # its words are the outputs: that is said, and nothing is dropped
        with pytest.raises(SettingError, match="output layer"):
            recipe.prepare(model, tiny.tiny_context())
        return
    recipe.prepare(model, tiny.tiny_context())
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for step in range(4):
        ids = torch.tensor([tiny.tiny_rows().encodings[step].ids])
        logits = model(input_ids=ids).logits[0]  # (T, V)
        nn.functional.cross_entropy(logits, ids[0]).backward()
        optimizer.step()
        optimizer.zero_grad()
        recipe.on_step_end(model, (step + 1) / 4)
    model = recipe.convert(model)
    assert tied.weight is model.bert.embeddings.word_embeddings.weight
    tensors, aliases = stored_tensors(model)
    assert aliases["cls.predictions.decoder.weight"] == "bert.embeddings.word_embeddings.weight"
    assert "cls.predictions.decoder.weight" not in tensors


@every_method
def test_nothing_to_change_is_an_error(name):
    nothing = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(SettingError):
        get_method(name)().prepare(nothing, Context())


@every_method
def test_the_loss_of_a_method_is_finite_and_has_a_gradient(tiny, name):
    method = get_method(name)()
    model = method.prepare(tiny.tiny_model(), tiny.tiny_context())
    batch = collate(tiny.tiny_rows(), np.array([0]))
    labels, rows = batch.pop("labels"), batch.pop("rows")
    logits = model(**batch).logits
    loss = nn.functional.cross_entropy(logits, labels)
    loss = method.compute_loss(loss, Step(model, rows, labels, logits, 0.5, batch))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.isfinite(loss)
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
