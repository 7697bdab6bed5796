"""New translators: their shapes, weights, tokenizer, and how they write; transformers is the reference."""

import itertools
import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import MarianMTModel

from multipress.batches import Rows, collate, num_steps, token_batches
from multipress.errors import ModelError
from multipress.models.decoding import write_translations
from multipress.models.encoder import encoder_linears, expected_shapes, model_inputs
from multipress.models.families import config_values, read_config
from multipress.models.translation import NAMED, train_tokenizer, translator_config, translator_shape
from multipress.packing.tokenizer import pack_tokenizer, unpack_tokenizer
from multipress.runtime.tokenizer import Encoding
from multipress.spec import TrainingSpec
from tiny import parallel_rows, tiny_translator

TEXTS = ["Ein Hund läuft.", "A dog runs through the grass.", "Zwei Männer, eine Frau.", "Two men and a woman."]


def test_the_big_shape_has_the_parameters_of_the_paper():
    shapes = expected_shapes(translator_config(NAMED["transformer-big"]))
    size, words = 1024, 32_000
    block = 4 * (size * size + size) + 2 * size * 4 * size + 5 * size
    norm = 2 * size
    expected = words * size + 6 * (block + 2 * norm) + 6 * (block + 4 * (size * size + size) + 3 * norm)
    # The bias of the words is no parameter, but stored.
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == expected + words


def test_a_name_says_the_shape():
    shape = translator_shape("transformer-l3-h96-v500")
    assert (shape.layers, shape.hidden, shape.heads, shape.feed_forward, shape.words) == (3, 96, 3, 384, 500)
    assert translator_shape("minilm-l6") is None
    with pytest.raises(ModelError, match="multiple of 32"):
        translator_shape("transformer-l3-h100")


def test_a_model_is_that_of_transformers_with_the_same_weights():
    model = tiny_translator().eval()
    reference = MarianMTModel(model.config).eval()
    reference.load_state_dict(model.state_dict(), strict=False)
    inputs = {"input_ids": torch.randint(2, 40, (3, 7)), "decoder_input_ids": torch.randint(2, 40, (3, 5))}
    torch.testing.assert_close(model(**inputs).logits, reference(**inputs).logits, rtol=0, atol=0)
    assert model.lm_head.weight is model.model.encoder.embed_tokens.weight
    again = read_config(json.loads(json.dumps(config_values(model.config))), "tiny")
    assert expected_shapes(again) == expected_shapes(model.config)
    # Attention and feed-forward layers of both sides, the output layer not: 6 and 10 a block.
    assert len(encoder_linears(model)) == 2 * 6 + 2 * 10


def test_padding_changes_nothing():
    model, rows = tiny_translator().eval(), parallel_rows(6)
    batch = collate(rows, np.arange(6))
    labels = batch["labels"]
    together = model(**model_inputs(model, batch)).logits
    for row in range(6):
        alone = collate(rows, np.array([row]))
        single = model(**model_inputs(model, alone)).logits[0]
        torch.testing.assert_close(together[row][labels[row] >= 0], single, rtol=1e-4, atol=1e-5)


def test_every_text_is_read_and_written_again_and_the_same_rows_teach_the_same_tokenizer():
    tokenizer = train_tokenizer(TEXTS * 3, 320)
    assert train_tokenizer(TEXTS * 3, 320) == tokenizer
    opened = Tokenizer.from_str(tokenizer)
    assert 258 < opened.get_vocab_size() <= 320
    for text in [*TEXTS, "日本 🙂 tab\tend", "ß"]:
        assert opened.decode(opened.encode(text).ids).strip() == text
    assert opened.encode("a").tokens[-1] == "</s>"
    assert json.loads(unpack_tokenizer(pack_tokenizer(tokenizer))) == json.loads(tokenizer)


def lengths_of(count, seed=0):
    return np.random.default_rng(seed).integers(3, 40, (count, 2))


@pytest.mark.parametrize("count", [1, 7, 500])
def test_batches_of_tokens_hold_every_row_once_within_the_limit(count):
    lengths = lengths_of(count)
    batches = [token_batches(lengths, 200, seed) for seed in (1, 1, 2)]
    for found in batches:
        assert sorted(np.concatenate(found).tolist()) == list(range(count))
        assert all(lengths[rows].max(axis=0).sum() * len(rows) <= 200 for rows in found)
    assert len({len(found) for found in batches}) == 1
    assert num_steps(lengths, TrainingSpec(epochs=3, batch_tokens=200)) == 3 * len(batches[0])
    assert all(np.array_equal(a, b) for a, b in zip(batches[0], batches[1], strict=True))


def test_a_row_longer_than_a_batch_is_a_batch_of_its_own():
    batches = token_batches(np.array([[90, 90], [3, 3], [3, 3]]), 100, 0)
    assert sorted(map(len, batches)) == [1, 2]


@torch.no_grad()
def test_without_a_beam_each_word_is_the_likeliest_next_one():
    model, rows = tiny_translator().eval(), parallel_rows(5)
    found = write_translations(model, rows.encodings, beams=1)
    for row, written in zip(rows.encodings, found, strict=True):
        ids, total = [0], 0.0
        most = 2 * len(row.ids) + 10
        while True:  # no cache, no batch
            logits = model(input_ids=torch.tensor([row.ids]), decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            step = logits.clone()
            step[0] = -torch.inf  # the padding is never written
            ids.append(int(step.argmax()) if len(ids) < most else 1)
            total += float(logits.log_softmax(-1)[ids[-1]])
            if ids[-1] == 1:
                break
        assert written.ids == [i for i in ids if i > 1]
        assert written.score == pytest.approx(total / (len(ids) - 1) ** 0.6, abs=1e-4)


@pytest.mark.parametrize("bias", [0.0, 6.0])  # translations that go on to their limit, and others that end
@torch.no_grad()
def test_the_score_is_the_probability_by_length_and_the_batch_does_not_matter(bias):
    model, rows = tiny_translator().eval(), parallel_rows(8)
    model.final_logits_bias[0, 1] = bias
    found = write_translations(model, rows.encodings, length_penalty=0.6)
    assert len({len(row.ids) for row in rows.encodings}) > 1
    for row, written in zip(rows.encodings, found, strict=True):
        ids = [0, *written.ids, 1]
        steps = model(input_ids=torch.tensor([row.ids]), decoder_input_ids=torch.tensor([ids[:-1]])).logits[0]
        total = steps.log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum()
        assert written.score == pytest.approx(float(total) / (len(ids) - 1) ** 0.6, abs=1e-4)
    at_most = [len(written.ids) == 2 * len(row.ids) + 9 for row, written in zip(rows.encodings, found, strict=True)]
    assert any(at_most) if bias == 0 else not all(at_most)
    alone = [write_translations(model, [row], length_penalty=0.6)[0] for row in rows.encodings]
    assert [row.ids for row in alone] == [row.ids for row in found]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_translations(penalty, monkeypatch):
    """Every translation of up to four of six words, the most that may be, is scored without beam and cache."""
    monkeypatch.setattr("multipress.models.decoding.MORE_TOKENS", -1)
    model = tiny_translator(words=8).eval()
    texts = [[first, second, 1] for first, second in itertools.product(range(2, 8), repeat=2)][::5]
    found = write_translations(
        model, [Encoding(ids, [0] * len(ids)) for ids in texts], beams=216, length_penalty=penalty
    )
    greedy = write_translations(
        model, [Encoding(ids, [0] * len(ids)) for ids in texts], beams=1, length_penalty=penalty
    )
    for ids, written in zip(texts, found, strict=True):
        best = (-float("inf"), ())
        for length in range(5):
            every = torch.tensor(list(itertools.product(range(2, 8), repeat=length)), dtype=torch.long)
            every = every.view(6**length, length)
            full = torch.cat([torch.zeros(len(every), 1, dtype=torch.long), every, torch.ones(len(every), 1).long()], 1)
            logits = model(input_ids=torch.tensor([ids] * len(full)), decoder_input_ids=full[:, :-1]).logits
            totals = logits.log_softmax(-1).gather(2, full[:, 1:, None])[..., 0].sum(1) / (length + 1) ** penalty
            best = max(best, (float(totals.max()), tuple(every[totals.argmax()].tolist())))
        assert (tuple(written.ids), written.score) == (best[1], pytest.approx(best[0], abs=1e-4))
    if penalty:
        assert any(one.score > other.score + 1e-3 for one, other in zip(found, greedy, strict=True))


def test_the_loss_is_the_mean_over_words_with_smoothed_labels():
    from multipress.train import _label_loss

    model, rows = tiny_translator().eval(), parallel_rows(4)
    batch = collate(rows, np.arange(4))
    labels = batch["labels"]
    logits = model(**model_inputs(model, batch)).logits
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=0.1)
    torch.testing.assert_close(_label_loss(logits[labels >= 0], labels[labels >= 0], 0.1), expected)


def test_rows_have_the_lengths_of_both_sides():
    rows = Rows([Encoding([2, 3, 1], [0] * 3)], None, 0, targets=[[5, 1]])
    assert rows.lengths.tolist() == [[3, 2]]
