"""A packed tokenizer: what goes in comes out, small, and nothing else opens."""

import json
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.errors import ArtifactError
from multipress.packing.stream import varint
from multipress.packing.tokenizer import MAX_TOKENIZER_BYTES, pack_tokenizer, unpack_tokenizer
from multipress.shrink import shipped_text
from packing.reference_decoder import tokenizer as decode_tokenizer
from tiny import word_piece

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | NAMES, lambda inner: st.lists(inner, max_size=3))


def of(vocabulary) -> str:
    return json.dumps({"version": "1.0", "model": {"type": "WordPiece", "vocab": vocabulary, "unk": "x"}, "last": 1})


def words_of_a_text() -> list[str]:
    return sorted({word for text in shipped_text() for word in text.split()})


def same(packed: bytes, tokenizer_json: str) -> None:
    assert json.loads(unpack_tokenizer(packed)) == json.loads(tokenizer_json)


@settings(max_examples=300)
@given(st.lists(NAMES, unique=True, max_size=40), st.booleans())
def test_any_words_come_back_with_their_ids(words, in_order):
    words = sorted(words) if in_order else words
    text = of({word: index for index, word in enumerate(words)})
    same(pack_tokenizer(text), text)


@settings(max_examples=100)
@given(st.dictionaries(NAMES, JSON, max_size=8) | st.lists(st.tuples(NAMES, st.floats(-9, 9)), max_size=8))
def test_a_vocabulary_of_another_kind_comes_back_too(vocabulary):
    text = of(vocabulary)
    same(pack_tokenizer(text), text)


@settings(max_examples=100)
@given(st.lists(NAMES.filter(lambda word: "\0" not in word), unique=True, min_size=1, max_size=30))
def test_a_decoder_written_from_the_page_reads_the_same_words(words):
    packed = pack_tokenizer(of({word: index for index, word in enumerate(words)}))
    rest, found = decode_tokenizer(packed, lambda frame: zstandard.ZstdDecompressor().decompress(frame))
    assert found == words
    assert json.loads(rest)["model"]["vocab"] is None


def test_the_words_of_a_text_take_about_half_of_the_compressed_json():
    """In the order of the alphabet; in any other order still less than the compressed JSON."""
    words = words_of_a_text()
    assert len(words) > 5000
    ordered = word_piece(words)
    plain = len(zstandard.ZstdCompressor(level=19).compress(ordered.encode()))
    assert len(pack_tokenizer(ordered)) < 0.55 * plain
    random.Random(0).shuffle(words)
    mixed = word_piece(words)
    assert len(pack_tokenizer(mixed)) < 0.75 * len(zstandard.ZstdCompressor(level=19).compress(mixed.encode()))


def frames(*parts: bytes) -> bytes:
    packed = [zstandard.ZstdCompressor().compress(part) for part in parts]
    return b"\1" + b"".join(varint(len(frame)) + frame for frame in packed)


DOCUMENT = b'{"model":{"vocab":null}}'
DAMAGED = {
    "another version": b"\2" + frames(DOCUMENT, b"", b"")[1:],
    "a part missing": frames(DOCUMENT, b""),
    "bytes too many": frames(DOCUMENT, b"", b"") + b"x",
    "not compressed": b"\1\3abc\0\0",
    "no object": frames(b"[]", b"", b""),
    "no place for words": frames(b'{"model":{"vocab":{}}}', b"\0", b"a\0"),
    "no model": frames(b"{}", b"\0", b"a\0"),
    "words without endings": frames(DOCUMENT, b"\0\0", b"a\0"),
    "an ending that does not end": frames(DOCUMENT, b"\0", b"a\0b"),
    "endings without words": frames(DOCUMENT, b"", b"a\0"),
    "more shared than there is": frames(DOCUMENT, b"\0\2", b"a\0b\0"),
    "a word twice": frames(DOCUMENT, b"\0\1", b"a\0\0"),
    "no text": frames(DOCUMENT, b"\0", b"\xff\0"),
    "a bomb of words": frames(DOCUMENT, b"\0" + b"\xff" * 400_000, b"a" * 255 + b"\0" * 400_001),
    "a bomb of no words": frames(DOCUMENT, bytes(3_000_000), bytes(3_000_000)),
    "a bomb of empty lists": frames(b'{"a":[' + b"[]," * 4_000_000 + b"0]}", b"", b""),
    "a bomb of zeros": frames(*3 * [bytes(MAX_TOKENIZER_BYTES + 1)]),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_refused(data):
    with pytest.raises(ArtifactError):
        unpack_tokenizer(data)


def test_every_truncation_is_refused():
    packed = pack_tokenizer(word_piece(["one", "once", "only"]))
    for size in range(len(packed)):
        with pytest.raises(ArtifactError):
            unpack_tokenizer(packed[:size])
