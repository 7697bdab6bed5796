"""Shrinking: the projection against plain algebra, and a folder that trains like any other."""

import json

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from multipress.cli.main import main
from multipress.errors import DataError, ModelError
from multipress.models import load_pretrained
from multipress.models.catalogue import SHRUNK_VERSION, Shape
from multipress.models.encoder import spread_blocks
from multipress.models.pretrained import identify, shape_by_name
from multipress.models.shrinking import shrink
from multipress.shrink import made_with, make_named, shipped_text, shrink_encoder
from tiny import bert_config, word_piece

WORDS = [f"w{index}" for index in range(40)]


def bigger(layers=4):
    """Four blocks, 64 hidden units, four heads of 16; norms and biases far from ones and zeros."""
    torch.manual_seed(0)
    config = bert_config(
        len(WORDS), num_hidden_layers=layers, hidden_size=64, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=64, num_labels=1,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def batches(count=6):
    torch.manual_seed(1)
    mask = torch.zeros(8, 1, 1, 12)
    mask[::2, :, :, 9:] = torch.finfo(torch.float32).min  # every other row has three tokens of padding
    return [
        {
            "input_ids": torch.randint(5, 45, (8, 12)),
            "token_type_ids": torch.zeros(8, 12, dtype=int),
            "attention_mask": mask,
        }
        for _ in range(count)
    ]


def states(model, batch):
    """Hidden states (layers + 1, N, D) of the real tokens."""
    real = batch["attention_mask"][:, 0, 0] == 0
    with torch.no_grad():
        return torch.stack([state[real] for state in model.bert(**batch, output_hidden_states=True).hidden_states])


@pytest.mark.parametrize(
    ("count", "of", "expected"), [(2, 6, [3, 6]), (3, 6, [2, 4, 6]), (4, 6, [2, 3, 4, 6]), (3, 3, [1, 2, 3])]
)
def test_blocks_are_spread_evenly_and_the_last_is_kept(count, of, expected):
    assert spread_blocks(count, of) == expected


def test_the_same_shape_is_the_same_model():
    model = bigger()
    small, basis = shrink(model, Shape(4, 64, 4, 96), batches())
    assert torch.equal(basis, torch.eye(64))
    for batch in batches(1):
        torch.testing.assert_close(states(small, batch), states(model, batch), atol=1e-4, rtol=1e-3)


def test_neurons_that_do_nothing_are_the_ones_that_go():
    model = bigger()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[:, 10:42] = 0  # 32 of 96 neurons are not heard
    small, _ = shrink(model, Shape(4, 64, 4, 64), batches())
    for batch in batches(1):
        torch.testing.assert_close(states(small, batch), states(model, batch), atol=1e-4, rtol=1e-3)


def test_heads_that_do_nothing_are_the_ones_that_go():
    model = bigger()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.output.dense.weight[:, 16:48] = 0  # the second and third of four heads are not heard
    small, _ = shrink(model, Shape(4, 32, 2, 96), batches())
    left = torch.cat([torch.arange(16), torch.arange(48, 64)])
    for ours, theirs in zip(small.bert.encoder.layer, model.bert.encoder.layer, strict=True):
        for part in ("query", "key", "value"):
            bias = getattr(theirs.attention.self, part).bias[left]
            torch.testing.assert_close(getattr(ours.attention.self, part).bias, bias, atol=0, rtol=0)


def test_what_a_name_stands_for_has_the_version_of_what_makes_it():
    """If this fails, the same name would be made otherwise: raise `SHRUNK_VERSION`, and put what is there now here."""
    made = made_with(shipped_text())
    assert made.pop("text_sha256").startswith("6e40da7b")
    assert (SHRUNK_VERSION, made) == (
        2,
        {"loop": 4, "distillation": 3, "constants": [64, 32, 16, 5e-4]},
    )


def test_the_basis_spans_what_a_singular_value_decomposition_finds():
    model, data = bigger(), batches()
    _, basis = shrink(model, Shape(2, 32, 2, 48), data)
    layers = np.concatenate([states(model, batch).numpy() for batch in data], axis=1)[[0, 2, 4]]
    scaled = np.concatenate([layer / np.sqrt((layer.astype(np.float64) ** 2).sum()) for layer in layers])
    directions = np.linalg.svd(scaled, full_matrices=False)[2][:32]
    cosines = np.linalg.svd(directions @ basis.numpy().astype(np.float64))[1]
    np.testing.assert_allclose(cosines, 1.0, atol=1e-4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(32), atol=1e-5)


def test_each_norm_is_the_least_squares_fit_to_the_projected_outputs():
    """The first one, against numpy: each dimension by itself, over all real tokens."""
    model, data = bigger(), batches()
    small, basis = shrink(model, Shape(2, 32, 2, 48), data)
    norm = small.bert.embeddings.LayerNorm
    wanted = np.concatenate([states(model, batch)[0].numpy() for batch in data]) @ basis.numpy()
    embeddings = model.bert.embeddings
    for dimension in (0, 7, 31):
        given = []
        for batch in data:
            with torch.no_grad():
                tokens = embeddings.word_embeddings(batch["input_ids"]) + embeddings.token_type_embeddings.weight[0]
                summed = (tokens + embeddings.position_embeddings.weight[:12]) @ basis
                plain = (summed - summed.mean(-1, keepdim=True)) / summed.std(-1, keepdim=True, unbiased=False)
            given.append(plain[batch["attention_mask"][:, 0, 0] == 0][:, dimension])
        column = torch.cat(given).double().numpy()
        fit = np.linalg.lstsq(np.stack([column, np.ones_like(column)], 1), wanted[:, dimension], rcond=None)[0]
        found = [norm.weight[dimension].item(), norm.bias[dimension].item()]
        np.testing.assert_allclose(found, fit, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [Shape(5, 64, 4, 96), Shape(4, 64, 2, 96), Shape(4, 128, 8, 96), Shape(4, 64, 4, 97)])
def test_a_shape_that_is_no_smaller_model_is_refused(shape):
    with pytest.raises(ModelError, match=r"must be from 1 to|need a hidden size"):
        shrink(bigger(), shape, batches(1))


@pytest.fixture
def folder(tmp_path):
    bigger().bert.save_pretrained(tmp_path / "big")
    (tmp_path / "big" / "tokenizer.json").write_text(word_piece(WORDS))
    lines = [" ".join(np.random.default_rng(seed).choice(WORDS, 90)) for seed in range(40)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    return tmp_path / "big"


def test_an_encoder_of_few_positions_is_shrunk_too(tmp_path, tiny_folder):
    """A row of the text has at most as many tokens as it reads."""
    (tmp_path / "text.txt").write_text("\n".join("my card is lost number 3" for _ in range(400)))
    command = ["shrink", str(tiny_folder), "--text", str(tmp_path / "text.txt"), "--layers", "1", "--steps", "1"]
    assert main([*command, "-o", str(tmp_path / "small")]) == 0
    assert json.loads((tmp_path / "small" / "config.json").read_text())["num_hidden_layers"] == 1


def test_what_is_to_be_smaller_must_be_said(tmp_path, tiny_folder, capsys):
    assert main(["shrink", str(tiny_folder), "-o", str(tmp_path / "small")]) == 2
    assert "--layers, --hidden or --feed-forward" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_recovery_brings_the_hidden_states_nearer_and_the_folder_trains(folder, tmp_path, capsys):
    text = ["--text", str(tmp_path / "text.txt"), "--layers", "2", "--hidden", "32"]
    losses = {}
    for steps in (0, 80):
        out = tmp_path / f"small-{steps}"
        assert main(["shrink", str(folder), *text, "--steps", str(steps), "-o", str(out)]) == 0
        losses[steps] = capsys.readouterr().err
    small = load_pretrained(str(tmp_path / "small-80"), label_names=("a", "b"), seed=0)
    config = small.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 32, 2)
    assert config.intermediate_size == 48
    said = [float(line.rsplit(" ", 1)[1]) for line in losses[80].splitlines() if line.startswith("step")]
    assert said[-1] < 0.9 * said[0]
    made = json.loads((tmp_path / "small-80" / "config.json").read_text())["shrunk"]
    assert made["source"] == "big"
    assert not (tmp_path / "small-80.shrinking").exists()
    few = ["--max-train-rows", "24", "--max-eval-rows", "20", "--epochs", "1", "--max-length", "16"]
    assert main(["train", str(tmp_path / "small-80"), "--task", "banking77", *few, "-o", str(tmp_path / "out")]) == 0


@pytest.mark.slow
def test_an_interrupted_recovery_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("multipress.train.SECONDS_A_SECOND", 0)  # a checkpoint after each step
    texts = (tmp_path / "text.txt").read_text().splitlines()
    arguments = (str(folder), Shape(2, 32, 2, 48))
    whole = shrink_encoder(*arguments, tmp_path / "whole", texts=texts, steps=120)

    def stop(done, total, loss):
        if done == 110:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrink_encoder(*arguments, tmp_path / "parts", texts=texts, steps=120, on_step=stop)
    steps = []
    parts = shrink_encoder(
        *arguments, tmp_path / "parts", texts=texts, steps=120, on_step=lambda done, total, loss: steps.append(done)
    )
    assert steps[0] == 110
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    # The checkpoint of another shape is not taken.
    with pytest.raises(KeyboardInterrupt):
        shrink_encoder(*arguments, tmp_path / "other", texts=texts, steps=120, on_step=stop)
    other = shrink_encoder(str(folder), Shape(1, 32, 2, 48), tmp_path / "other", texts=texts, steps=2)
    assert json.loads((other / "config.json").read_text())["num_hidden_layers"] == 1


def test_a_name_is_made_once_and_then_found(tmp_path, monkeypatch):
    """With the embedded encoder; two blocks of 32, and no recovery, so that it takes seconds."""
    monkeypatch.setenv("MULTIPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("multipress.shrink.SHRUNK_STEPS", 0)
    monkeypatch.setattr("multipress.shrink.CALIBRATION_BATCHES", 1)
    with pytest.raises(ModelError, match="not made yet"):
        identify("minilm-l1-h32")
    notes = []
    for _ in range(2):
        make_named("minilm-l1-h32", on_note=notes.append)
    assert len(notes) == 1
    config = identify("minilm-l1-h32").config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (1, 32, 128)
    assert shape_by_name("minilm-l1-h32").config.hidden_size == 32
    assert shape_by_name("minilm-l3-h384").config.num_hidden_layers == 3
    for name in ("minilm-l1-h33", "minilm-l2-h416", "minilm-l6-h384"):
        with pytest.raises(ModelError, match="multiple of 32"):
            make_named(name)


def test_too_little_text_and_a_place_that_is_taken_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="needs at least"):
        shrink_encoder(str(folder), Shape(2, 32, 2, 48), tmp_path / "out", texts=["w1 w2"])
    with pytest.raises(ModelError, match="not empty"):
        shrink_encoder(str(folder), Shape(2, 32, 2, 48), folder)


def test_the_text_of_the_package_is_whole():
    texts = shipped_text()
    assert len(texts) == 4024
    assert texts[0].startswith("Homarus gammarus")
    assert not any("@-@" in text or text.startswith("=") for text in texts)
