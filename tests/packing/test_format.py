"""`docs/format.md` says all there is to know: a second decoder, written from that page, reads the same values."""

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.packing import VERSION
from multipress.packing.packet import encode
from multipress.packing.stream import ANS, RAW, ZSTD, Reader, encode_stream
from packing.reference_decoder import Bytes, decode_packet, stream


def unzstd(payload):
    return zstandard.ZstdDecompressor().decompress(payload)


def assert_reads(array):
    dtype, shape, items = decode_packet(encode(array), unzstd)
    assert (dtype, shape) == (array.dtype.name, array.shape)
    assert items == array.astype(array.dtype.newbyteorder("<")).tobytes()


def laplace(spread, zeros, size, limit=127):
    """Integers as they come out of a training: a peak at zero, fast falling sides."""

    def draw(seed):
        random = np.random.default_rng(seed)
        values = np.clip(np.rint(random.laplace(0, spread, size)), -limit, limit)
        return (values * (random.random(size) >= zeros)).astype(np.int8)

    return draw


KINDS = {
    "eight bits": laplace(20, 0.0, (60, 50)),
    "four bits": laplace(2, 0.0, (70, 64), 7),
    "ternary": laplace(0.7, 0.0, (90, 40), 1),
    "mostly zero": laplace(20, 0.9, (100, 60)),
    "one in a thousand": laplace(5, 0.999, (300, 200)),
    "nothing but zeros": laplace(1, 1.0, (700, 300)),
    "two bits": laplace(0.8, 0.0, (300, 200)),
    "one bit": laplace(0.4, 0.0, (300, 200)),
    "half floats": lambda seed: np.random.default_rng(seed).normal(size=(40, 30)).astype(np.float16),
    "floats with holes": lambda seed: (laplace(1, 0.8, (50, 30))(seed) * np.float32(0.37)).astype(np.float32),
    "a single number": lambda seed: np.array(seed, dtype=np.float32),
    "none": lambda seed: np.zeros((3, 0, 2), dtype=np.int8),
    "a long row of one value": lambda seed: np.full(70_000, 3, dtype=np.int8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_decoders_read_the_same(kind):
    for seed in range(3):
        assert_reads(KINDS[kind](seed))


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(-128, 127), max_size=200),
    repeats=st.integers(1, 40),
    dtype=st.sampled_from(["int8", "float16", "float32"]),
)
def test_both_decoders_read_any_array(values, repeats, dtype):
    assert_reads(np.tile(np.array(values, dtype=np.int8), repeats).astype(dtype))


@settings(max_examples=60)
@given(
    weights=st.lists(st.integers(0, 10_000), min_size=2, max_size=256).filter(any),
    seed=st.integers(0, 2**32 - 1),
    low=st.integers(0, 255),
)
def test_both_decoders_read_any_stream(weights, seed, low):
    """Of any distribution over an alphabet of any size."""
    weights = weights[: 256 - low] if low < 255 else weights[:1]
    if not any(weights):
        return
    p = np.array(weights, dtype=np.float64)
    symbols = low + np.random.default_rng(seed).choice(len(p), size=700, p=p / p.sum())
    assert stream(Bytes(encode_stream(symbols.astype(np.uint8))), 700, unzstd) == symbols.tolist()


def test_these_arrays_use_every_codec_and_layout():
    packets = [encode(draw(0)) for draw in KINDS.values()]
    assert {packet[1] for packet in packets} == set(range(5))
    codecs = set()
    for packet in packets:
        reader = Reader(packet)
        layout, dimensions = reader.take(4)[1], packet[3]
        [reader.varint() for _ in range(dimensions + (layout == 4))]
        if layout:
            codecs.add(reader.byte())
    text = np.frombuffer(b"the same few words, " * 300, dtype=np.uint8)
    codecs.add(encode_stream(text)[0])
    assert stream(Bytes(encode_stream(text)), len(text), unzstd) == text.tolist()
    assert codecs == {RAW, ZSTD, ANS}
    assert VERSION == 1
