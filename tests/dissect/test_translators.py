"""A translator is dissected too: what its encoder gives, and where the zeros of both sides sit."""

import json

import numpy as np
import pytest
import torch

from multipress.checkpoint import save_model
from multipress.cli.main import main
from multipress.dissect.capture import Wanted, capture
from multipress.dissect.reading import Reading, read_words
from multipress.dissect.zeros import MATRICES, count_zeros
from multipress.models.encoder import build_classifier, encoder_linears, expected_shapes
from multipress.models.translation import TranslatorShape, new_weights, train_tokenizer, translator_config
from multipress.runtime.tokenizer import Encoding
from tiny import tiny_translator

WORDS = [f"w{number}" for number in range(30)]


def write(folder, sparsity):
    """A translator whose blocks have so many zeros, weights and biases."""
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, 320)
    from tokenizers import Tokenizer

    config = translator_config(TranslatorShape(2, 32, 2, 64, Tokenizer.from_str(tokenizer).get_vocab_size()))
    model = build_classifier(config, new_weights(expected_shapes(config), 0)).eval()
    with torch.no_grad():
        for linear in encoder_linears(model).values():
            linear.bias.add_(0.1)
            linear.weight[linear.weight.abs() <= linear.weight.abs().quantile(sparsity)] *= sparsity == 0
    task = {"name": "t", "target": "text", "labels": [], "metrics": ["bleu", "chrf"], "score": "bleu"}
    return save_model(folder, model, tokenizer_json=tokenizer, facts={"run_id": "", "task": task, "max_length": 64})


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translators")
    return {name: write(folder / name, sparsity) for name, sparsity in (("dense", 0.0), ("small", 0.5))}


def test_states_and_maps_are_those_of_the_encoder_row_by_row(tmp_path):
    model = tiny_translator().eval()
    random = np.random.default_rng(0)
    rows = []
    for words in (3, 5):
        ids = [*random.integers(2, 40, words).tolist(), 1]
        rows.append(Reading(Encoding(ids, [0] * len(ids)), np.arange(1, words + 2), words))
    spans = [[(word, word + 1) for word in range(row.num_words)] for row in rows]
    found = capture(model, Wanted(rows, spans, [row.units for row in rows]), tmp_path)
    assert (len(found.states), len(found.maps)) == (3, 2)
    with torch.no_grad():
        outs = [
            model.model.encoder(torch.tensor([row.encoding.ids]), output_hidden_states=True, output_attentions=True)
            for row in rows
        ]
    for layer, state in enumerate(found.states):
        expected = np.concatenate([out.hidden_states[layer][0, :-1] for out in outs])
        np.testing.assert_allclose(state, expected, atol=1e-5)
    for block, maps in enumerate(found.maps):
        expected = np.concatenate([out.attentions[block][0].flatten(1) for out in outs], axis=1)
        np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_every_word_has_its_pieces(artifacts):
    (reading,) = read_words(artifacts["dense"], [["w1", "and", "w29", "ü"]])
    assert reading.units.tolist() == sorted(reading.units.tolist())
    assert set(reading.units) == {1, 2, 3, 4, 5}  # the end is behind the words
    assert list(reading.units).count(5) == 1


def test_zeros_of_both_sides_have_names_the_decoder_after_the_encoder(artifacts):
    found = list(count_zeros(artifacts["small"]))
    weights = artifacts["small"].dense_weights()
    assert all(one.zeros == int((weights[one.tensor] == 0).sum()) for one in found)
    assert all(one.matrix in MATRICES and one.matrix != "other" for one in found)
    layers = {layer: {one.matrix for one in found if one.layer == layer} for layer in (1, 2, 3, 4)}
    cross = {"cross query", "cross key", "cross value", "cross output"}
    assert not layers[2] & cross
    assert layers[3] - layers[2] == layers[4] - layers[1] == cross
    assert next(one for one in found if one.tensor == "model.shared.weight").layer == 0


def test_the_command_compares_two_translators(artifacts, tmp_path, capsys):
    random = np.random.default_rng(1)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(random.choice(WORDS, 12)) for _ in range(30)))
    small, dense = (artifacts[name].folder for name in ("small", "dense"))
    assert main(["dissect", str(small), "--against", str(dense), "--data", str(text), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    same = {row["context"]["layer"]: row["value"] for row in rows if row["name"] == "linear_cka" and depth(row)}
    assert list(same) == [0, 1, 2]
    assert same[0] == pytest.approx(1, abs=1e-4)  # embeddings have lost nothing
    assert same[1] < 0.9999
    assert {row["context"]["layer"] for row in rows if row["name"] == "attention_maxcorr"} == {1, 2}
    out = tmp_path / "page.html"
    assert main(["dissect", str(small), "--against", str(dense), "--data", str(text), "--out", str(out)]) == 0
    assert "cross query" in out.read_text()


def depth(row):
    """Whether a row is of two layers of the same depth."""
    return row["context"]["layer"] == row["context"]["against_layer"]
