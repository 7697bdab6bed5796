"""Texts to ids: as transformers does it; batches cover every row; padding is on the right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.errors import ArtifactError, DataError
from multipress.runtime.tokenizer import Encoding, TextEncoder, batches_by_length, pad_batch

TEXTS = ["w1 w2", "", "w3 " * 30, "unknown w4", "W5\tw6\n", "\u0000w7", "日本 w8 \U0001f600"]


def test_ids_are_those_of_transformers_with_truncation_and_pairs(tokenizer_json):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_json), pad_token="[PAD]"
    )
    encoder = TextEncoder(tokenizer_json, 12)
    pairs = [TEXTS[-1 - index] for index in range(len(TEXTS))]
    for second in (None, pairs):
        expected = reference(TEXTS, second, truncation=True, max_length=12, return_token_type_ids=True)
        found = encoder.encode(TEXTS, second)
        assert [row.ids for row in found] == expected["input_ids"]
        assert [row.type_ids for row in found] == expected["token_type_ids"]


def test_rows_that_were_cut_are_counted(tokenizer_json):
    encoder = TextEncoder(tokenizer_json, 5)
    rows = encoder.encode(["w1", "w1 w2 w3", "w1 w2 w3 w4", "w1 " * 1000])
    assert encoder.num_truncated == 2
    assert [len(row.ids) for row in rows] == [3, 5, 5, 5]
    encoder.encode(["w1"])
    assert encoder.num_truncated == 0


def test_the_longer_text_of_a_pair_loses_tokens_first(tokenizer_json):
    encoder = TextEncoder(tokenizer_json, 9)
    (row,) = encoder.encode(["w1 " * 50], ["w2 w3"])
    assert row.type_ids == [0] * 6 + [1] * 3
    assert row.ids.count(row.ids[1]) == 4


def test_the_tokenizers_own_padding_and_truncation_do_not_count(tokenizer_json):
    from tokenizers import Tokenizer

    other = Tokenizer.from_str(tokenizer_json)
    other.enable_padding(length=128, pad_id=4)
    other.enable_truncation(3)
    encoder = TextEncoder(other.to_str(), 12)
    assert [len(row.ids) for row in encoder.encode(["w1 w2 w3 w4"])] == [6]
    assert encoder.pad_id == 4
    assert TextEncoder(tokenizer_json, 12).pad_id == 0
    assert TextEncoder(tokenizer_json, 12).vocab_size == 64


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters()), max_size=4))  # surrogates too
def test_any_text_is_encoded(tokenizer_json, texts):
    rows = TextEncoder(tokenizer_json, 8).encode(texts)
    assert all(row.ids[0] == 2 and row.ids[-1] == 3 and len(row.ids) <= 8 for row in rows)


def test_one_string_or_unequal_lists_are_refused(tokenizer_json):
    encoder = TextEncoder(tokenizer_json, 8)
    with pytest.raises(DataError, match="list of texts"):
        encoder.encode("w1")
    with pytest.raises(DataError, match="2 texts but 1 second"):
        encoder.encode(["w1", "w2"], ["w3"])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": "1.0"}', "\x00"])
def test_what_is_no_tokenizer_is_an_artifact_error(text):
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        TextEncoder(text, 8)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 7))
def test_batches_cover_every_row_once_in_order_of_length(lengths, batch_size):
    batches = batches_by_length(lengths, batch_size)
    rows = [int(row) for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_padding_is_on_the_right_and_masked():
    batch = pad_batch([Encoding([2, 9, 3], [0, 0, 1]), Encoding([2, 3], [0, 1])], pad_id=7)
    assert batch["input_ids"].tolist() == [[2, 9, 3], [2, 3, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert all(array.dtype == np.int64 for array in batch.values())
