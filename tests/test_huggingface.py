"""Artifacts open in transformers, in stock classes: models, tokenizers, pipelines; and go to the hub."""

import json
import shutil

import numpy as np
import pytest
import torch

import multipress as mp
from multipress.artifact import open_artifact
from multipress.checkpoint import save_model
from multipress.errors import ArtifactError, RunError, SettingError
from multipress.export import Export, export_artifact
from multipress.export.write import Rows
from multipress.methods.base import Context
from multipress.methods.quantization import Quantization
from multipress.models.families import FAMILIES
from tiny import family_config

TEXTS = ["w1 w2 w3", "w9 w4", "w4 w5 unknown", "w7"]
PAIRS = ["w2", "w3 w4", "w5", "w50"]


@pytest.fixture(scope="module")
def write(tokenizer_json, tmp_path_factory):
    """Store a tiny classifier of a family, trained with these settings of quantization (none: floats)."""

    def build(family: str, is_pair: bool = False, **settings):
        torch.manual_seed(0)
        model = FAMILIES[family].classifier(family_config(family, 59, num_labels=3)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        if settings:
            method = Quantization(**settings)
            model = method.prepare(model, Context()).train()
            model(torch.randint(5, 59, (4, 10)))  # what fixed scales of activations come from
            model = method.convert(model).eval()
        task = {"name": "text", "target": "classes", "labels": ["bad", "fair", "good"], "metrics": ["accuracy"]}
        facts = {"run_id": "0123456789ab", "task": {**task, "score": "accuracy", "is_pair": is_pair}, "max_length": 16}
        folder = tmp_path_factory.mktemp("artifacts") / "artifact"
        return save_model(folder, model, tokenizer_json=tokenizer_json, facts=facts)

    return build


def stock_logits(folder, texts, pairs=None) -> np.ndarray:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, pairs, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.numpy()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_opens_in_the_auto_classes(write, family):
    import multipress.huggingface  # noqa: F401

    artifact = write(family, bits=4)
    assert np.abs(stock_logits(artifact.folder, TEXTS) - mp.open(artifact.folder).logits(TEXTS)).max() < 1e-4


@pytest.mark.parametrize(
    "settings", [{}, {"bits": 2}, {"activation_bits": 8}, {"activation_bits": 8, "activation_scale": "static"}]
)
def test_pairs_floats_low_bits_and_rounded_activations_open_too(write, settings):
    import multipress.huggingface  # noqa: F401

    artifact = write("bert", is_pair=True, **settings)
    expected = mp.open(artifact.folder).logits(TEXTS, PAIRS)
    difference = np.abs(stock_logits(artifact.folder, TEXTS, PAIRS) - expected)
    assert difference.max() < (0.05 if "activation_bits" in settings else 1e-4)


def test_a_pipeline_predicts_and_what_it_saves_needs_multipress_no_more(write, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    import multipress.huggingface  # noqa: F401

    folder = write("bert", bits=4).folder
    found = pipeline("text-classification", model=str(folder))(TEXTS)
    expected = mp.open(folder)(TEXTS)
    assert [row["label"] for row in found] == [row.label for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row.score for row in expected], abs=1e-4)
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert np.abs(stock_logits(tmp_path, TEXTS) - mp.open(folder).logits(TEXTS)).max() < 1e-4


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_an_exported_dense_twin_opens_without_multipress(write, tmp_path, family):
    artifact = write(family, is_pair=True, bits=4)
    export_artifact(artifact, Export("safetensors", "fp32"), tmp_path, Rows("rows", TEXTS, PAIRS))
    expected = mp.open(artifact.folder).logits(TEXTS, PAIRS)
    assert np.abs(stock_logits(tmp_path, TEXTS, PAIRS) - expected).max() < 1e-4


@pytest.mark.parametrize("scale", ["dynamic", "static"])
def test_a_twin_of_rounded_activations_is_compared_as_it_is_loaded(write, tmp_path, scale):
    from transformers import AutoModelForSequenceClassification

    import multipress.huggingface  # noqa: F401

    artifact = write("bert", activation_bits=8, activation_scale=scale)
    report = export_artifact(artifact, Export("safetensors", "fp32"), tmp_path / "out", Rows("rows", TEXTS))
    twin = stock_logits(tmp_path / "out", TEXTS)
    difference = np.abs(twin - mp.open(artifact.folder).logits(TEXTS)).max()
    assert difference > 1e-4
    told = report["models"]["model.safetensors"]["parity"]["largest_difference"]
    assert told == pytest.approx(difference, rel=1e-2)
    assert "answers below differ" in (tmp_path / "out" / "README.md").read_text()
    with pytest.warns(UserWarning, match="weights alone"):
        AutoModelForSequenceClassification.from_pretrained(artifact.folder).save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "out" / "tokenizer.json", tmp_path / "saved")
    shutil.copy(tmp_path / "out" / "tokenizer_config.json", tmp_path / "saved")
    assert np.abs(stock_logits(tmp_path / "saved", TEXTS) - twin).max() < 1e-4


def test_a_part_of_an_artifact_is_refused(write, tmp_path):
    from transformers import AutoModelForSequenceClassification

    import multipress.huggingface  # noqa: F401

    folder = write("bert", bits=4).folder
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path / name)
    with pytest.raises(ArtifactError, match=r"no manifest\.json.*snapshot_download"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_a_dry_run_lists_what_would_be_uploaded_and_uploads_nothing(write_tiny, tmp_path, monkeypatch):
    artifact = write_tiny(tmp_path / "a")
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", None)
    told = mp.push_to_hub(artifact.folder, "user/name", dry_run=True)
    assert (told["bytes"], told["uploaded"]) == (open_artifact(artifact.folder).package_bytes, False)
    assert "manifest.json" in told["files"]
    with pytest.raises(SettingError, match="user/name"):
        mp.push_to_hub(artifact.folder, "https://hub/user/name", dry_run=True)
    with pytest.raises(ArtifactError):
        mp.push_to_hub(tmp_path, "user/name", dry_run=True)


def test_an_upload_sends_the_listed_files_and_a_failure_is_one_line(write_tiny, tmp_path, monkeypatch):
    artifact = write_tiny(tmp_path / "a")
    sent = {}
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, repo, **settings: sent.update(repo=repo))
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **settings: sent.update(settings) or "url")
    told = mp.push_to_hub(artifact.folder, "user/name")
    assert (told["url"], sent["repo"], set(sent["allow_patterns"])) == ("url", "user/name", set(told["files"]))

    def fail(self, **settings):
        raise OSError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", fail)
    with pytest.raises(RunError, match="no network"):
        mp.push_to_hub(artifact.folder, "user/name")
