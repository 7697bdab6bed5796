"""A translator is dissected too: what its encoder gives, and where the zeros of both sides sit."""

import json

import numpy as np
import pytest
import torch

from multipress.checkpoint import save_model
from multipress.cli.main import main
from multipress.dissect.capture import Wanted, capture, capture_decoder
from multipress.dissect.layers import attention_rows
from multipress.dissect.reading import Reading, read_targets, read_words
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


def test_states_and_maps_of_the_decoder_are_those_that_transformers_reports(tmp_path):
    """Row by row, without padding; cross-attention is from the units of the translation to those of the text."""
    model = tiny_translator().eval()
    random = np.random.default_rng(0)

    def readings(sizes, special):
        found = []
        for words in sizes:
            ids = random.integers(2, 40, words).tolist()
            ids, units = ([0, *ids], range(words + 1)) if special == "first" else ([*ids, 1], range(1, words + 2))
            found.append(Reading(Encoding(ids, [0] * len(ids)), np.array(units), words))
        spans = [[(word, word + 1) for word in range(row.num_words)] for row in found]
        return Wanted(found, spans, [row.units for row in found])

    read, written = readings((3, 5, 2), "last"), readings((4, 2, 6), "first")
    own, cross = capture_decoder(model, read, written, tmp_path)
    outs = []
    for a, b in zip(read.readings, written.readings, strict=True):
        ids, target = torch.tensor([a.encoding.ids]), torch.tensor([b.encoding.ids])
        with torch.no_grad():
            outs.append(model(ids, decoder_input_ids=target, output_hidden_states=True, output_attentions=True))
    assert (len(own.states), len(own.maps), len(cross.states), len(cross.maps)) == (3, 2, 0, 2)
    for layer, state in enumerate(own.states):
        expected = np.concatenate([out.decoder_hidden_states[layer][0, 1:] for out in outs])
        np.testing.assert_allclose(state, expected, atol=1e-5)
    for block in range(2):
        for found, name in ((own, "decoder_attentions"), (cross, "cross_attentions")):
            expected = np.concatenate([getattr(out, name)[block][0].flatten(1) for out in outs], axis=1)
            np.testing.assert_allclose(found.maps[block], expected, atol=1e-5)
    assert cross.num_units.tolist() == [5, 3, 7]
    assert cross.num_seen.tolist() == [4, 6, 3]


def test_heads_of_a_decoder_that_look_evenly_at_all_they_see_are_degenerate_and_others_are_not(tmp_path):
    model = tiny_translator().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name:
                parameter.mul_(0 if "decoder.layers.0" in name else 40)
    random = np.random.default_rng(0)
    sides = []
    for special in (slice(-1, None), slice(1)):
        ids = random.integers(2, 40, size=(20, 8))
        ids[:, special] = 1
        units = np.arange(8) + (special.stop is None)
        rows = [Reading(Encoding(row.tolist(), [0] * 8), units, 7) for row in ids]
        sides.append(Wanted(rows, [[(word, word + 1) for word in range(7)]] * 20, [units] * 20))
    for found, is_causal in zip(capture_decoder(model, *sides, tmp_path), (True, False), strict=True):
        even = np.tri(8) if is_causal else np.ones((8, 8))
        seen = np.tile((even / even.sum(axis=1, keepdims=True)).ravel(), (2, 20))
        assert found.maps[0] == pytest.approx(seen, abs=1e-5)
        assert found.is_causal == is_causal
        rows = attention_rows(found, found, [np.zeros(8, dtype=bool)] * 20)
        counts = {row.context["layer"]: row.value for row in rows if row.name == "attention_degenerate"}
        assert counts == {1: 2, 2: 0}


def test_a_decoder_reads_the_padding_and_then_the_words(artifacts):
    (target,), (words,) = (read(artifacts["dense"], [["w1", "w29"]]) for read in (read_targets, read_words))
    assert target.encoding.ids == [0, *words.encoding.ids[:-1]]
    assert target.units.tolist() == [0, *words.units.tolist()[:-1]]


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


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Texts and their translations: the words in the other order."""
    random = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [random.choice(WORDS, 12).tolist() for _ in range(30)]
    lines = [json.dumps({"de": " ".join(words), "en": " ".join(words[::-1]), "id": 1}) for words in rows]
    path.write_text("\n".join([*lines, json.dumps({"de": "w1 " * 41, "en": "w1", "id": 2})]))
    return str(path)


def test_with_translations_decoders_and_cross_attention_are_compared_too(artifacts, pairs, tmp_path, capsys):
    small, dense = (str(artifacts[name].folder) for name in ("small", "dense"))
    command = ["dissect", small, dense, "--against", dense, "--data", pairs, "--text", "de", "--label", "en"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["context"].get("rows", 30) for row in rows} == {30}  # the long one is left out

    def values(name, part, artifact):
        """By layer, of the same depth."""
        own = [row for row in rows if row["name"] == name and row["context"]["artifact"].startswith(artifact)]
        return {
            row["context"]["layer"]: row["value"] for row in own if row["context"].get("part") == part and depth(row)
        }

    for part, layers in ((None, [1, 2]), ("decoder", [1, 2]), ("cross-attention", [1, 2])):
        assert list(values("attention_maxcorr", part, "small")) == layers
        assert values("attention_maxcorr", part, "dense") == pytest.approx(dict.fromkeys(layers, 1), abs=1e-5)
        assert max(values("attention_maxcorr", part, "small").values()) < 0.9999
    for part in (None, "decoder"):
        assert list(values("linear_cka", part, "small")) == [0, 1, 2]
        assert values("linear_cka", part, "dense") == pytest.approx({0: 1, 1: 1, 2: 1}, abs=1e-4)
        assert list(values("attention_distance", part, "small")) == [1, 2]
    assert not values("linear_cka", "cross-attention", "small")
    assert not values("attention_distance", "cross-attention", "small")
    out, csv = tmp_path / "page.html", tmp_path / "rows.csv"
    assert main([*command, "--out", str(out), "--csv", str(csv)]) == 0
    capsys.readouterr()
    page = out.read_text()
    titles = ["What differs", "The decoder", "Across layers: decoder", "The cross-attention"]
    titles.append("Which head matches which: cross-attention")
    assert [page.index(title) for title in titles] == sorted(page.index(title) for title in titles)
    assert ",cross-attention,2,2," in csv.read_text()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.index("The decoder:") < said.index("The cross-attention:")


def test_translations_that_cannot_be_used_are_refused(artifacts, pairs, tmp_path, capsys):
    dense = str(artifacts["dense"].folder)
    text = tmp_path / "text.txt"
    text.write_text("w1 w2\n" * 30)
    for options, said in (
        (["--data", pairs, "--text", "de", "--label", "fr"], "no label column 'fr'"),
        (["--data", pairs, "--label", "en", "--text", "fr"], "no text column 'fr'"),
        (["--label", "en"], "need --data FILE"),
        (["--text", "de"], "has no columns"),
        (["--data", str(text), "--label", "en"], "need --data FILE"),
    ):
        assert main(["dissect", dense, "--against", dense, *options]) == 2
        assert said in capsys.readouterr().err


def depth(row):
    """Whether a row is of two layers of the same depth."""
    return row["context"]["layer"] == row["context"]["against_layer"]
