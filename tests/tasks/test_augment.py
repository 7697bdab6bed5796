"""Augmentation: neighbours against scikit-learn, and replacements that repeat and keep the rest of a text."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from multipress.tasks.augment import WORD, nearest_words, replace_words

VOCABULARY = {
    piece: row for row, piece in enumerate(["[PAD]", "##ing", "a", "the", "cat", "dog", "bird", "card", "123"])
}
EMBEDDINGS = np.random.default_rng(0).normal(size=(len(VOCABULARY), 6)).astype(np.float32)
NEAREST = {"card": ["cat"], "lost": ["found", "gone"]}


def test_neighbours_are_those_of_scikit_learn_among_whole_words():
    found = nearest_words(["cat", "the", "absent", "a"], VOCABULARY, EMBEDDINGS, count=3)
    assert set(found) == {"cat", "the"}
    whole = ["bird", "card", "cat", "dog", "the"]
    rows = EMBEDDINGS[[VOCABULARY[word] for word in whole]]
    reference = NearestNeighbors(n_neighbors=4, metric="cosine").fit(rows)
    for word, others in found.items():
        order = reference.kneighbors(EMBEDDINGS[[VOCABULARY[word]]])[1][0]
        assert others == [whole[index] for index in order[1:]]


PIECES = st.sampled_from(["card", "Card", "lost", "other", " ", ", ", "12", "\u00e9t\u00e9 ", "x"])
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40)


@given(texts=st.lists(TEXTS, max_size=5), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_only_known_words_change_and_the_same_seed_changes_the_same(texts, share, seed):
    new = replace_words(texts, NEAREST, share, seed)
    assert new == replace_words(texts, NEAREST, share, seed)
    for before, after in zip(texts, new, strict=True):
        assert WORD.sub("_", before) == WORD.sub("_", after)
        changed = [(old, new) for old, new in zip(WORD.findall(before), WORD.findall(after), strict=True) if old != new]
        assert all(new in NEAREST[old.lower()] for old, new in changed)
        assert bool(changed) == any(word.lower() in NEAREST for word in WORD.findall(before))


def test_words_of_other_lengths_leave_the_rest_where_it_was():
    near = {"card": ["a"], "lost": ["misplaced"]}
    assert replace_words(["My card, lost: the CARD!"], near, 1.0, 0) == ["My a, misplaced: the a!"]


def test_about_a_share_of_the_words_is_replaced():
    text = "my card is lost and this card is lost, "
    (new,) = replace_words([text * 200], NEAREST, 0.3, 1)
    words = re.findall(r"cat|found|gone", new)
    assert 0.25 < len(words) / 800 < 0.35
    assert {"found", "gone", "cat"} == set(words)


@pytest.mark.parametrize("text", ["", "no such word", "12 34"])
def test_a_text_without_a_known_word_stays(text):
    assert replace_words([text], NEAREST, 1.0, 0) == [text]
