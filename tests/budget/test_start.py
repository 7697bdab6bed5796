"""The user's classifier: its head and its labels are kept, whatever their order, or the mismatch is an error."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from multipress.artifact import open_artifact
from multipress.budget.start import Outputs, check_labels, dense_folder, given_bytes, outputs_of, store_original
from multipress.checkpoint import save_model
from multipress.engines.job import ANYWHERE
from multipress.errors import ModelError
from multipress.methods import Context
from multipress.methods.quantization import Quantization
from multipress.models import load_pretrained
from multipress.runtime import Predictor
from multipress.tasks import Task

TASK = Task("text", "classes", ("maybe", "no", "yes"), ("accuracy",), "accuracy")
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8", "w9 w9"]


def logits_of(folder, tokenizer_json):
    from multipress.runtime.tokenizer import TextEncoder

    model = BertForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    rows = TextEncoder(tokenizer_json, 16).encode(TEXTS)
    with torch.no_grad():
        return np.stack([model(input_ids=torch.tensor([row.ids])).logits[0].numpy() for row in rows])


@pytest.mark.parametrize(
    "labels",
    [("maybe", "no", "yes"), ("yes", "maybe", "no"), ("YES", "No", "maybe"), ("LABEL_0", "LABEL_1", "LABEL_2"), ()],
    ids=str,
)
def test_the_head_is_kept_with_each_output_under_its_name(classifier, labels, tokenizer_json, tmp_path):
    """Against transformers, by the names of the outputs; without names they are taken to be sorted."""
    folder = classifier(labels)
    before = logits_of(folder, tokenizer_json)
    found = outputs_of(folder, TASK, tmp_path / "search", ANYWHERE)
    model, order = found.model, found.labels
    assert found.names == TASK.labels
    assert not found.note(TASK)
    named = {label.casefold() for label in labels} == set(TASK.labels)
    assert order == (tuple(label.casefold() for label in labels) if named else TASK.labels)
    assert (model == folder) == (labels == order)
    place = store_original(model, replace(TASK, labels=order), 16, tmp_path / "search", ANYWHERE)
    assert open_artifact(place).facts["task"]["labels"] == list(order)
    np.testing.assert_allclose(Predictor(place).logits(TEXTS), before, atol=5e-3)
    assert outputs_of(folder, TASK, tmp_path / "search", ANYWHERE) == found  # made once
    # The labels of the rows are corrected: another copy, not the old one.
    other = replace(TASK, labels=("a", "b", "c"))
    if not named:
        again = outputs_of(folder, other, tmp_path / "search", ANYWHERE).model
        assert again != model
        assert store_original(again, other, 16, tmp_path / "search", ANYWHERE) != place


def test_an_artifact_with_fixed_scales_is_a_model_to_begin_with_again(classifier, tokenizer_json, tmp_path):
    """The scales are no weights of the model that it stands for."""
    folder = classifier(TASK.labels)
    model = BertForSequenceClassification.from_pretrained(folder)
    method = Quantization(activation_bits=8, activation_scale="static")
    method.prepare(model, Context()).train()
    model(torch.randint(5, 40, (4, 8)))
    facts = {"run_id": "0" * 12, "task": TASK.to_json(), "max_length": 16}
    artifact = save_model(
        tmp_path / "artifact", method.convert(model).eval(), tokenizer_json=tokenizer_json, facts=facts
    )
    assert artifact.has_static_activations
    dense = dense_folder(str(artifact.folder), tmp_path)
    found = load_pretrained(dense, label_names=TASK.labels, seed=0).model.state_dict()
    assert all(np.array_equal(found[name].numpy(), weight) for name, weight in artifact.dense_weights().items())


def test_other_labels_are_an_error_that_names_both(classifier, tmp_path):
    folder = classifier(("bad", "good", "so so"))
    with pytest.raises(ModelError, match="for bad, good, so so, but the rows have the labels maybe, no, yes"):
        outputs_of(folder, TASK, tmp_path / "search", ANYWHERE)
    two = Task("text", "classes", ("no", "yes"), ("accuracy",), "accuracy")
    with pytest.raises(ModelError, match="fine-tuned for 3 classes without names"):
        outputs_of(classifier(()), two, tmp_path / "search", ANYWHERE)


def test_rows_may_lack_a_label_of_the_model_and_an_unknown_one_is_named(classifier, tmp_path):
    folder = classifier(("Maybe", "yes", "no"))
    few = Task("text", "classes", ("no", "yes"), ("accuracy",), "accuracy")
    found = outputs_of(folder, few, tmp_path / "search", ANYWHERE)
    assert found == Outputs(folder, ("Maybe", "yes", "no"), ("no", "yes"))
    assert found.note(few) == "No row has the label Maybe, which the model knows."
    counted = np.array([0, 0, 0, 1, 0])
    with pytest.raises(ModelError, match=r"1 of 5 training rows have a label that it does not know: 'perhaps' \(1\)"):
        outputs_of(folder, replace(few, labels=("no", "perhaps")), tmp_path / "search", ANYWHERE, counted)
    with pytest.raises(ModelError, match="but the rows have the labels perhaps"):
        outputs_of(folder, replace(few, labels=("no", "perhaps")), tmp_path / "search", ANYWHERE)


@pytest.mark.parametrize("given", [("0", "1", "2"), ("0", "2")])
def test_numbers_as_labels_are_those_of_the_outputs(classifier, given, tmp_path):
    task = Task("text", "classes", given, ("accuracy",), "accuracy")
    folder = classifier(("yes", "no", "maybe"))
    found = outputs_of(folder, task, tmp_path / "search", ANYWHERE)
    names = tuple(("yes", "no", "maybe")[int(label)] for label in given)
    assert found == Outputs(folder, ("yes", "no", "maybe"), names)
    assert "0 as yes" in found.note(task)
    unnamed = outputs_of(classifier(()), task, tmp_path / "search", ANYWHERE)
    assert (unnamed.labels, unnamed.names) == (("0", "1", "2"), given)


def test_one_output_and_labels_is_an_error_that_says_how_numbers_are_given(tiny_bert, tokenizer_json, tmp_path):
    folder = tmp_path / "number"
    tiny_bert(1).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json)
    with pytest.raises(ModelError, match=r"has one output, a number.*say --target number"):
        outputs_of(str(folder), TASK, tmp_path / "search", ANYWHERE)


def test_the_size_of_the_model_before_is_that_of_its_files(classifier, tokenizer_json, tmp_path, write_tiny):
    folder = classifier(("no", "yes", "maybe"))
    (tmp_path / "classifier" / "training_args.json").write_text("{}" * 10_000)  # not needed to predict
    files = ("model.safetensors", "config.json", "tokenizer.json")
    assert given_bytes(folder, ANYWHERE) == sum((tmp_path / "classifier" / name).stat().st_size for name in files)
    artifact = write_tiny(tmp_path / "artifact")
    assert given_bytes(str(tmp_path / "artifact"), ANYWHERE) == artifact.package_bytes


def test_an_encoder_without_a_head_has_nothing_to_be_stored(tiny_folder, tmp_path):
    expected = Outputs(str(tiny_folder), TASK.labels, TASK.labels)
    assert outputs_of(str(tiny_folder), TASK, tmp_path, ANYWHERE) == expected
    assert store_original(str(tiny_folder), TASK, 16, tmp_path, ANYWHERE) is None


def test_an_artifact_is_compressed_as_the_model_that_it_stands_for(tiny_bert, tokenizer_json, tmp_path):
    labels = ("yes", "maybe", "no")
    facts = {"run_id": "", "task": replace(TASK, labels=labels).to_json(), "max_length": 16}
    artifact = save_model(tmp_path / "small", tiny_bert(3), tokenizer_json=tokenizer_json, facts=facts)
    found = outputs_of(str(artifact.folder), TASK, tmp_path / "search", ANYWHERE)
    model, order = found.model, found.labels
    assert order == labels
    place = store_original(model, replace(TASK, labels=order), 16, tmp_path / "search", ANYWHERE)
    np.testing.assert_allclose(Predictor(place).logits(TEXTS), Predictor(artifact).logits(TEXTS), atol=5e-3)
    with pytest.raises(ModelError, match="is an artifact, stored already"):
        store_original(str(artifact.folder), TASK, 16, tmp_path / "search", ANYWHERE)


def test_swapped_labels_are_an_error():
    labels = np.array([0, 0, 1, 1, 2, 2] * 10)
    check_labels("m", TASK, labels, labels)
    check_labels("m", TASK, np.where(np.arange(60) % 2, labels, 0), labels)  # poor, but in order
    with pytest.raises(ModelError, match=r"right on 0\.0%") as raised:
        check_labels("m", TASK, (labels + 1) % 3, labels)
    assert "maybe looks like yes" in str(raised.value)
    # Two of three are swapped, and the third is the most common: above chance.
    common = np.array([0, 0, 0, 0, 1, 2] * 20)
    with pytest.raises(ModelError, match=r"right on 66.7%"):
        check_labels("m", TASK, np.array([0, 2, 1])[common], common)
    with pytest.raises(ModelError, match="calls every row 'maybe'"):
        check_labels("m", TASK, np.zeros_like(labels), labels)


def test_any_permutation_of_many_classes_is_noticed():
    """Of a good classifier, right on nine of ten rows."""
    random = np.random.default_rng(0)
    task = Task("text", "classes", tuple(f"c{i:02}" for i in range(77)), ("accuracy",), "accuracy")
    labels = random.integers(77, size=1500)
    predictions = np.where(random.random(1500) < 0.9, labels, random.integers(77, size=1500))
    check_labels("m", task, predictions, labels)
    for _ in range(20):
        with pytest.raises(ModelError):
            check_labels("m", task, random.permutation(77)[predictions], labels)
