"""Packets: bit-exact, small, and strict about every byte."""

import contextlib
import itertools
import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multipress.errors import ArtifactError
from multipress.packing import decode, encode, entropy_bound_bytes, peek
from multipress.packing.packet import MAX_RATIO
from multipress.packing.stream import encode_stream, varint

DTYPES = ("int8", "float16", "float32")


def assert_bit_exact(array: np.ndarray) -> bytes:
    packet = encode(array)
    found = decode(packet)
    assert (found.dtype, found.shape) == (array.dtype, array.shape) == peek(packet)
    assert found.tobytes() == array.tobytes()
    return packet


def header_bytes(array: np.ndarray) -> int:
    # Version, layout, dtype, dimensions; 7 bits of a size in each byte.
    return 4 + sum(max(1, math.ceil(size.bit_length() / 7)) for size in array.shape)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    )
)
def test_any_array_comes_back_bit_for_bit_and_no_larger_than_itself_and_a_header(array):
    packet = assert_bit_exact(array)
    assert len(packet) <= array.nbytes + header_bytes(array)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(DTYPES))
def test_any_bits_come_back_whatever_number_they_mean(data, dtype):
    size = np.dtype(dtype).itemsize
    assert_bit_exact(np.frombuffer(data[: len(data) // size * size], dtype=dtype))


def test_every_width_density_and_size_comes_back():
    random = np.random.default_rng(0)
    for bits, density, count in itertools.product(range(1, 9), (0.0, 0.01, 0.2, 0.9, 1.0), (1, 2, 7, 4099, 20_000)):
        limit = max(2 ** (bits - 1) - 1, 1)
        codes = random.integers(-limit, limit + 1, size=count) * (random.random(count) < density)
        assert_bit_exact(codes.astype(np.int8))


def test_nan_payloads_negative_zero_and_infinities_keep_their_bits():
    for dtype, kind in (("float16", "uint16"), ("float32", "uint32")):
        one = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5, 6e-8], dtype=dtype)
        payload = np.array([0x7C01, 0xFE55], dtype=np.uint16).view("float16") if dtype == "float16" else one[:0]
        array = np.concatenate([one, payload, np.zeros(5000, dtype=dtype)])
        assert decode(encode(array)).view(kind).tolist() == array.view(kind).tolist()


def test_arrays_that_are_not_contiguous_or_of_foreign_byte_order_come_back_as_values():
    array = np.arange(60, dtype=np.float32).reshape(6, 10)
    assert np.array_equal(decode(encode(array.T)), array.T)
    assert np.array_equal(decode(encode(array[::2, ::3])), array[::2, ::3])
    assert np.array_equal(decode(encode(array.astype(">f4"))), array)


def test_other_dtypes_are_refused():
    for dtype in ("int16", "float64", "bool", "complex64", "U3"):
        with pytest.raises(ArtifactError, match="cannot be packed"):
            encode(np.zeros(3, dtype=dtype))


def test_the_same_array_gives_the_same_bytes():
    codes = np.random.default_rng(1).integers(-7, 8, size=(50, 60)).astype(np.int8)
    assert encode(codes) == encode(codes.copy()) == encode(np.asfortranarray(codes))


def gaussian_codes(step: float, shape: tuple[int, int] = (512, 512)) -> np.ndarray:
    values = np.random.default_rng(2).normal(size=shape)
    return np.clip(np.rint(values / step), -127, 127).astype(np.int8)


@pytest.mark.parametrize("step", [0.03, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_codes_take_at_most_two_percent_above_their_entropy(step, sparsity):
    codes = gaussian_codes(step)
    codes *= (np.random.default_rng(3).random(codes.shape) >= sparsity).astype(np.int8)
    assert len(assert_bit_exact(codes)) <= 1.02 * entropy_bound_bytes(codes)


def test_the_bound_is_the_entropy_of_the_integers_and_the_stored_width_of_floats():
    codes = gaussian_codes(0.3)
    counts = Counter(codes.ravel().tolist())
    reference = sum(-math.log2(counts[code] / codes.size) for code in codes.ravel().tolist()) / 8
    assert entropy_bound_bytes(codes) == pytest.approx(reference, rel=1e-12)
    assert entropy_bound_bytes(np.ones(100, dtype=np.float16)) == 200
    assert entropy_bound_bytes(np.zeros((0, 3), dtype=np.int8)) == 0
    half = np.array([0.0, 1.0] * 400, dtype=np.float32)
    assert entropy_bound_bytes(half) == 400 * 4 + 800 / 8


def test_zeros_of_pruned_floats_are_not_stored():
    values = np.random.default_rng(4).normal(size=100_000).astype(np.float16)
    values[np.random.default_rng(5).random(values.size) < 0.8] = 0
    assert len(assert_bit_exact(values)) < entropy_bound_bytes(values) < values.nbytes / 4


@pytest.fixture(
    params=[
        np.random.default_rng(6).integers(-3, 4, size=(12, 9)).astype(np.int8),  # raw groups
        gaussian_codes(0.5, (60, 40)) * gaussian_codes(1.5, (60, 40)),  # zeros beside the rest
        gaussian_codes(0.1, (90, 50)),  # zstd
        gaussian_codes(0.7, (90, 90)),  # kinds
        np.random.default_rng(7).laplace(0, 0.35, size=(120, 120)).round().astype(np.int8),  # gaps
        np.random.default_rng(6).normal(size=(3, 5)).astype(np.float16),  # the array's own bytes
        np.zeros((200, 300), dtype=np.float32),  # padded
    ],
    ids=["raw", "sparse", "zstd", "kinds", "gaps", "plain", "constant"],
)
def golden(request):
    return request.param, encode(request.param)


def test_every_truncation_is_refused(golden):
    _, packet = golden
    for length in range(len(packet)):
        with pytest.raises(ArtifactError):
            decode(packet[:length])


def test_trailing_bytes_are_refused(golden):
    _, packet = golden
    for tail in (b"\0", b"\1", b"\0" * 100):
        with pytest.raises(ArtifactError):
            decode(packet + tail)


def test_a_changed_byte_is_refused_or_gives_an_array_of_the_declared_shape(golden):
    # A packet has no checksum (the manifest has), but nothing else than ArtifactError may come of damage.
    array, packet = golden
    for position in range(len(packet)):
        damaged = bytearray(packet)
        damaged[position] ^= 1 << position % 8
        try:
            found = decode(bytes(damaged))
        except ArtifactError:
            continue
        assert found.size <= max(array.size, len(packet) * MAX_RATIO)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_never_do_more_than_raise_an_artifact_error(data):
    for packet in (data, b"\1" + data, encode(gaussian_codes(0.5, (8, 8)))[:7] + data):
        with contextlib.suppress(ArtifactError):
            decode(packet)


def test_a_short_packet_that_declares_an_endless_array_is_refused_before_anything_is_allocated():
    for layout in range(5):
        endless = bytes([1, layout, 0, 2]) + b"\xff\xff\xff\xff\x7f" * 2 + b"\0" * 20
        with pytest.raises(ArtifactError, match="too large"):
            peek(endless)
        with pytest.raises(ArtifactError, match="too large"):
            decode(endless)


def test_constant_arrays_are_as_small_as_the_ratio_allows():
    zeros = np.zeros(10 * MAX_RATIO, dtype=np.int8)
    assert len(assert_bit_exact(zeros)) <= 20
    assert len(assert_bit_exact(np.zeros(100 * MAX_RATIO, dtype=np.int8))) == 100


def test_a_mask_that_names_zeros_is_refused():
    mask, zeros = bytes([0, 1, 0, 0]), bytes([0, 128, 0, 0])  # three items that are there, all of them 0
    with pytest.raises(ArtifactError, match="names zeros"):
        decode(bytes([1, 2, 0, 1, 3]) + mask + zeros)


def stream_of(symbols) -> bytes:
    return encode_stream(np.array(symbols, dtype=np.uint8))


def others_of(values) -> bytes:
    return stream_of([value + 128 for value in values])


KINDS, GAPS = (lambda body, count, layout=layout: bytes([1, layout, 0, 1, count]) + body for layout in (3, 4))


def test_layouts_of_small_integers_are_read_as_the_page_says():
    kinds = KINDS(stream_of([0, 1, 2, 3, 0, 3]) + others_of([-7, 2]), 6)
    assert decode(kinds).tolist() == [0, 1, -1, -7, 0, 2]
    # No zero and a 1; two zeros and another; 21 zeros; one zero and a -1; the rest zeros.
    gaps = GAPS(varint(4) + stream_of([0, 8, 63, 4]) + others_of([5]), 30)
    assert decode(gaps).tolist() == [1, 0, 0, 5, *[0] * 21, 0, -1, 0, 0, 0]


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (KINDS(stream_of([0, 1, 2, 4]) + others_of([]), 4), "unknown kinds"),
        *((KINDS(stream_of([0, 3]) + others_of([near]), 2), "among the other") for near in (0, 1, -1)),
        (GAPS(varint(5) + stream_of([0, 1, 0, 1, 0]) + others_of([]), 4), "5 gaps"),
        (GAPS(varint(2) + stream_of([0, 64]) + others_of([]), 90), "unknown gaps"),
        (GAPS(varint(2) + stream_of([0, 63]) + others_of([]), 90), "zeros at its end"),
        (GAPS(varint(2) + stream_of([0, 12]) + others_of([]), 5), "beyond its end"),
        *((GAPS(varint(1) + stream_of([2]) + others_of([near]), 3), "among the other") for near in (0, 1, -1)),
    ],
)
def test_small_integers_that_are_declared_wrongly_are_refused(packet, why):
    with pytest.raises(ArtifactError, match=why):
        decode(packet)


def test_layouts_of_small_integers_are_refused_of_floats():
    for layout in (3, 4):
        with pytest.raises(ArtifactError, match="unknown layout or dtype"):
            decode(bytes([1, layout, 1, 1, 4]) + bytes(40))


def test_gaps_of_any_length_come_back_across_chunks():
    random = np.random.default_rng(8)
    for mean in (1, 20, 22, 42, 300):
        gaps = random.geometric(1 / mean, size=300_000) - 1
        values = np.zeros(int((gaps + 1).sum()) + 7, dtype=np.int8)
        values[np.cumsum(gaps + 1) - 1] = random.choice(
            [1, -1, 2, -2, -128, 127], 300_000, p=[0.4, 0.4, 0.1, 0.08, 0.01, 0.01]
        )
        packet = assert_bit_exact(values)
        assert len(packet) <= 1.02 * entropy_bound_bytes(values), mean


def test_another_version_is_refused_by_its_number():
    packet = bytearray(encode(np.zeros(3, dtype=np.int8)))
    packet[0] = 9
    with pytest.raises(ArtifactError, match="version 9"):
        decode(bytes(packet))


@pytest.mark.slow
def test_twenty_thousand_random_arrays_come_back():
    random = np.random.default_rng(0)
    for _ in range(20_000):
        dtype = np.dtype(DTYPES[random.integers(3)])
        count = int(random.integers(0, 200))
        array = random.integers(0, 256, size=count * dtype.itemsize, dtype=np.uint8).view(dtype)
        array[random.random(count) >= random.random()] = 0
        found = decode(encode(array))
        assert found.tobytes() == array.tobytes()


HOSTILE = 1 << 24


def hostile_packets() -> dict[str, bytes]:
    """Packets of a few hundred bytes that declare 16 million items, nothing of which is a zero."""
    fives = np.full(HOSTILE, 5, dtype=np.int8)
    others = encode_stream(np.full(HOSTILE, 133, dtype=np.uint8))
    bodies = {
        "planes": (1, others),
        "mask": (2, encode_stream(np.ones(HOSTILE, dtype=np.uint8)) + others),
        "kinds": (3, encode_stream(np.full(HOSTILE, 3, dtype=np.uint8)) + others),
        "gaps": (4, varint(HOSTILE) + encode_stream(np.full(HOSTILE, 2, dtype=np.uint8)) + others),
    }
    least = fives.nbytes // MAX_RATIO
    heads = {name: bytes([1, layout, 0, 1]) + varint(HOSTILE) + body for name, (layout, body) in bodies.items()}
    return {name: packet.ljust(least, b"\0") for name, packet in heads.items()}


@pytest.mark.parametrize("name", ["planes", "mask", "kinds", "gaps"])
def test_what_a_hostile_packet_makes_a_reader_allocate_is_what_it_declares_and_a_mask(name):
    packet = hostile_packets()[name]
    assert len(packet) == HOSTILE // MAX_RATIO
    tracemalloc.start()
    try:
        found = decode(packet)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found == 5).all()
    assert HOSTILE <= peak <= HOSTILE * (2 if name == "mask" else 1) + 8 * 2**20
