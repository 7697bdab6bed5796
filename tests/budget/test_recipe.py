"""What a search varies, as methods of a run and back, and in words."""

import pytest

from multipress.budget.tries import Recipe, cut_folder
from multipress.methods import build_method
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec

RECIPES = [
    (Recipe("m"), "8 bits, learning rate 0.0001, 3 epochs"),
    (
        Recipe("m", rate=1.25, words="rows", epochs=1),
        "1.25 bits a weight, only the rows' words, learning rate 0.0001, 1 epoch",
    ),
    (
        Recipe("m", rate=0.5, words="general", temperature=2.5, learning_rate=3e-4),
        "0.50 bits a weight, unused words dropped, learning rate 0.0003, 3 epochs, temperature 2.5",
    ),
    (
        Recipe("m", heads=0.5, neurons=0.25),
        "8 bits, without 50% of the heads and 25% of the neurons, learning rate 0.0001, 3 epochs",
    ),
    (
        Recipe("m", bits=3, sparsity=0.6, words="rows"),
        "3 bits, 60% of the weights zero, only the rows' words, learning rate 0.0001, 3 epochs",
    ),
    (Recipe("m", static=True), "8 bits, activations with fixed scales, learning rate 0.0001, 3 epochs"),
    (
        Recipe("m", rate=1.25, static=True),
        "1.25 bits a weight, activations with fixed scales, learning rate 0.0001, 3 epochs",
    ),
    (Recipe("m", rate=0), "dense, learning rate 0.0001, 3 epochs"),
]


@pytest.mark.parametrize(("layers", "words"), [(4, "4 layers"), (1, "1 layer")])
def test_a_model_with_fewer_layers_says_how_many(layers, words):
    model = f"/somewhere/{cut_folder(layers, 200, 'a' * 64)}"
    assert Recipe(model).text() == f"8 bits, {words}, learning rate 0.0001, 3 epochs"


@pytest.mark.parametrize(("recipe", "words"), RECIPES, ids=[words for _, words in RECIPES])
def test_a_run_tells_its_recipe(recipe, words):
    """With all settings of its methods written out, as a store keeps them."""
    asked = recipe.methods("a teacher")
    asked.get("distillation", {}).pop("teacher", None)
    methods = tuple(MethodSpec(name, build_method(name, settings).settings()) for name, settings in asked.items())
    training = TrainingSpec(epochs=recipe.epochs, learning_rate=recipe.learning_rate)
    spec = RunSpec("train", "m", DataSpec(task="sst2"), training, methods, teacher="0" * 12 if asked else "")
    assert Recipe.of(RunSpec.from_json(spec.to_json())) == recipe
    assert recipe.text() == words
    if asked:
        assert "distillation" in asked
        assert "distillation" not in recipe.methods("")
