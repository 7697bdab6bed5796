"""Streams: each codec is taken where it should be, and all give the symbols back."""

import numpy as np
import pytest
import zstandard

from multipress.errors import ArtifactError
from multipress.packing.stream import ANS, RAW, ZSTD, Reader, decode_stream, encode_stream, varint


def roundtrip(symbols: np.ndarray) -> bytes:
    data = encode_stream(symbols)
    reader = Reader(data)
    assert np.array_equal(decode_stream(reader, len(symbols)), symbols)
    assert reader.left == 0
    return data


@pytest.mark.parametrize("alphabet", [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 1000, 5001])
def test_every_alphabet_and_length_comes_back(alphabet, count):
    random = np.random.default_rng(alphabet)
    for low in {0, 256 - alphabet}:
        even = random.integers(0, alphabet, size=count)
        skewed = np.minimum(random.geometric(0.5, size=count) - 1, alphabet - 1)
        for symbols in (even, skewed):
            roundtrip((symbols + low).astype(np.uint8))


def test_each_codec_is_taken_where_it_is_smallest():
    random = np.random.default_rng(0)
    assert roundtrip(random.integers(0, 256, size=9999).astype(np.uint8))[0] == RAW
    assert roundtrip(np.tile(random.integers(0, 256, size=100), 90).astype(np.uint8))[0] == ZSTD
    assert roundtrip((random.random(9999) < 0.03).astype(np.uint8))[0] == ANS


def test_the_slow_codec_is_taken_only_where_it_saves_much():
    random = np.random.default_rng(0)

    def bell(width):
        symbols = (np.rint(random.laplace(0, width, size=300_000)).clip(-127, 127) + 128).astype(np.uint8)
        shares = np.bincount(symbols)[np.unique(symbols)] / len(symbols)
        data = roundtrip(symbols)
        return data[0], 8 * len(data) / len(symbols) / float(-(shares * np.log2(shares)).sum())

    for width in (0.3, 0.5):
        codec, over = bell(width)
        assert codec == ANS
        assert over < 1.002
    # 2.7 to 5.8 bits, of more than 16 different symbols
    for width, most in ((1.2, 1.03), (2.0, 1.015), (4.0, 1.015), (10.0, 1.015)):
        codec, over = bell(width)
        assert codec == ZSTD
        assert over < most


def test_long_streams_are_decoded_in_chunks():
    random = np.random.default_rng(0)
    assert roundtrip((random.random(20_000_003) < 0.02).astype(np.uint8))[0] == ANS


def test_one_symbol_takes_no_payload_however_often_it_comes():
    assert len(encode_stream(np.full(10**6, 77, dtype=np.uint8))) == 4


def test_varints_come_back_and_only_the_shortest_form_is_read():
    for value in (0, 1, 127, 128, 300, 2**14, 2**35 + 5, 2**49 - 1):
        reader = Reader(varint(value))
        assert reader.varint() == value
        assert reader.left == 0
    for wrong in (b"\x80\x00", b"\xff" * 8, b"\x80", b""):
        with pytest.raises(ArtifactError):
            Reader(wrong).varint()


def test_damaged_headers_are_refused():
    for data in (
        bytes([3, 0, 1, 1, 0]),  # unknown codec
        bytes([0, 200, 100, 1, 0]),  # symbols above 255
        bytes([0, 0, 0, 1, 0]),  # one symbol with a payload
        bytes([0, 0, 1, 2, 0, 0]),  # two bytes for eight bits
        bytes([0, 0, 2, 2, 81, 0]),  # 81 is no group of four of three symbols
        bytes([2, 0, 1, 2, 0, 0]),  # no weights
        bytes([2, 0, 1, 1, 1]),  # a cut table
        bytes([2, 0, 1, 6, 1, 1, 0, 0, 0, 0]),  # a last word of zero
        bytes([1, 0, 1, 3, 1, 2, 3]),  # not zstd
    ):
        with pytest.raises(ArtifactError):
            decode_stream(Reader(data), 8)


def test_a_stream_that_declares_other_symbols_than_it_has_is_refused():
    for data, count in (
        (bytes([0, 128, 1, 1, 0b10101111]), 5),  # the last group is filled up with ones
        (bytes([0, 100, 150, 3, 28, 28, 28]), 3),  # a span wider than what is there
        (bytes([0, 100, 150, 3, 28, 29, 150]), 3),  # a lowest symbol that none is
        (bytes([0, 7, 0, 0]), 0),  # a lowest symbol of nothing
        (bytes([0, 0, 5, 0]), 0),  # a span of nothing
        (bytes([2, 128, 1, 2, 1, 1]), 5),  # a coded stream without words: the first symbol alone
    ):
        with pytest.raises(ArtifactError):
            decode_stream(Reader(data), count)
    assert decode_stream(Reader(bytes([0, 128, 1, 1, 0b10101000])), 5).tolist() == [129, 128, 129, 128, 129]


@pytest.mark.parametrize(("window_log", "is_read"), [(17, True), (23, True), (24, False), (27, False)])
def test_a_frame_that_wants_much_memory_is_refused(window_log, is_read):
    """A decoder must keep so much of what it gave, whatever the frame is as a file."""
    symbols = np.zeros(2**25 + 1, dtype=np.uint8)
    symbols[-1] = 255  # symbols of 256 kinds stand for themselves
    settings = zstandard.ZstdCompressionParameters(window_log=window_log, strategy=zstandard.STRATEGY_FAST)
    frame = zstandard.ZstdCompressor(compression_params=settings).compress(symbols.tobytes())
    data = bytes([ZSTD, 0, 255]) + varint(len(frame)) + frame
    if is_read:
        assert np.array_equal(decode_stream(Reader(data), len(symbols)), symbols)
    else:
        with pytest.raises(ArtifactError, match="more memory"):
            decode_stream(Reader(data), len(symbols))
