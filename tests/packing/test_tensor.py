"""Stored tensors: codes times scales, or rounded floats."""

import math

import numpy as np
import pytest

from multipress.errors import ArtifactError
from multipress.packing.tensor import BITS, StoredTensor, round_floats

CODES = np.array([[1, -3, 0], [2, 0, 3]], dtype=np.int8)
SCALE = np.array([0.5, 0.125], dtype=np.float16)


def test_dense_is_the_code_times_the_scale_of_its_row():
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, size=(5, 4, 3)).astype(np.int8)
    scale = random.random(5).astype(np.float16)
    dense = StoredTensor(codes, scale, 8).dense()
    assert dense.dtype == np.float32
    for index in np.ndindex(codes.shape):
        assert dense[index] == np.float32(codes[index]) * np.float32(scale[index[0]])


def test_dense_is_the_code_times_the_scale_of_its_group():
    random = np.random.default_rng(0)
    codes = random.integers(-7, 8, size=(5, 12)).astype(np.int8)
    scale = random.random((5, 3)).astype(np.float16)
    tensor = StoredTensor(codes, scale, 4)
    assert tensor.has_groups
    for row, column in np.ndindex(codes.shape):
        assert tensor.dense()[row, column] == np.float32(codes[row, column]) * np.float32(scale[row, column // 4])


@pytest.mark.parametrize("shape", [(5, 1), (5, 5), (4, 3), (5, 24), (5, 3, 1), (3,)])
def test_groups_that_do_not_divide_the_rows_are_refused(shape):
    with pytest.raises(ArtifactError, match="an equal part"):
        StoredTensor(np.zeros((5, 12), np.int8), np.ones(shape, np.float16), 4)


def test_floats_are_rounded_to_half_unless_one_would_become_infinite():
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    assert round_floats(values).bits == 16
    assert np.array_equal(round_floats(values).dense(), values.astype(np.float16).astype(np.float32))
    large = values * 1e6
    assert round_floats(large).bits == 32
    assert np.array_equal(round_floats(large).dense(), large)
    assert round_floats(np.array([np.inf, np.nan])).bits == 16
    assert round_floats(np.float32(3.0)).values.shape == ()


@pytest.mark.parametrize("bits", [bits for bits in BITS if bits <= 8])
def test_codes_beyond_the_width_are_refused(bits):
    limit = 2 ** (bits - 1) - 1
    for code in (limit, -limit):
        StoredTensor(np.array([[code]], dtype=np.int8), SCALE[:1], bits)
    for code in {max(-limit - 1, -128), min(limit + 1, 127)} - {limit}:
        with pytest.raises(ArtifactError, match="beyond"):
            StoredTensor(np.array([[code]], dtype=np.int8), SCALE[:1], bits)


def test_parts_that_do_not_fit_are_refused():
    for values, scale, bits in (
        (CODES, None, 3),
        (CODES, SCALE.astype(np.float32), 3),
        (CODES, np.concatenate([SCALE, SCALE]), 3),
        (CODES, SCALE, 5),
        (CODES.astype(np.int16), SCALE, 3),
        (CODES.astype(np.float16), SCALE, 16),
        (CODES.astype(np.float32), None, 16),
        (np.array(1, dtype=np.int8), SCALE[:1], 8),
    ):
        with pytest.raises(ArtifactError):
            StoredTensor(values, scale, bits)


def test_one_scale_may_stand_for_all_rows():
    codes = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    single = StoredTensor(codes, np.array([0.5], np.float16), 8)
    every = StoredTensor(codes, np.full(4, 0.5, np.float16), 8)
    assert np.array_equal(single.dense(), every.dense())
    assert every.entropy_bound_bytes - single.entropy_bound_bytes == 6


def test_the_hash_depends_on_every_value_and_on_the_scale():
    first = StoredTensor(CODES, SCALE, 3)
    assert first.sha256() == StoredTensor(np.asfortranarray(CODES), SCALE.copy(), 3).sha256()
    assert first.sha256() != StoredTensor(CODES[::-1], SCALE, 3).sha256()
    assert first.sha256() != StoredTensor(CODES, SCALE[::-1], 3).sha256()


def test_the_bound_counts_the_scale_at_its_width():
    assert StoredTensor(np.zeros((2, 9), dtype=np.int8), SCALE, 3).entropy_bound_bytes == 4
    even = np.array([[-1, 1] * 40, [-1, 1] * 40], dtype=np.int8)
    assert StoredTensor(even, SCALE, 2).entropy_bound_bytes == math.ceil(160 / 8) + 4
