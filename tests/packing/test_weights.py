"""The weights file is never larger than the same weights in dense 16 bits, whatever was done to them."""

import json

import numpy as np
import pytest
import safetensors.numpy

from multipress.errors import ArtifactError
from multipress.packing.container import read_header, write_container
from multipress.packing.packet import encode
from multipress.packing.stream import varint
from multipress.packing.tensor import BITS, StoredTensor, round_floats
from multipress.packing.weights import check_weights, read_tensors, write_weights

DENSITIES = (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)


def shapes() -> dict[str, tuple[int, ...]]:
    """A BERT of two layers and 64 hidden units, with its usual names: 165,000 weights."""
    found: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (1000, 64),
        "bert.embeddings.position_embeddings.weight": (64, 64),
        "bert.embeddings.token_type_embeddings.weight": (2, 64),
        "bert.embeddings.LayerNorm.weight": (64,),
        "bert.pooler.dense.weight": (64, 64),
        "classifier.weight": (2, 64),
        "classifier.bias": (2,),
    }
    linears = {
        **{f"attention.self.{name}": (64, 64) for name in ("query", "key", "value")},
        "attention.output.dense": (64, 64),
        "intermediate.dense": (256, 64),
        "output.dense": (64, 256),
    }
    for layer in range(2):
        for name, shape in linears.items():
            found[f"bert.encoder.layer.{layer}.{name}.weight"] = shape
            found[f"bert.encoder.layer.{layer}.{name}.bias"] = shape[:1]
    return found


def stored(weight: np.ndarray, bits: int) -> StoredTensor:
    if bits == 32 or (bits <= 8 and weight.ndim == 1):
        return round_floats(weight)
    if bits == 16:
        return StoredTensor(weight.astype(np.float16), None, 16)
    limit = 2 ** (bits - 1) - 1
    scale = (np.abs(weight).max(axis=1) / limit).astype(np.float16)
    scale[scale == 0] = 1
    codes = np.rint(weight / scale.astype(np.float32)[:, None])
    return StoredTensor(np.clip(codes, -limit, limit).astype(np.int8), scale, bits)


def in_16_bits(tensors: dict[str, StoredTensor]) -> int:
    """Bytes that the reference library writes for the same weights as float16."""
    return len(safetensors.numpy.save({name: one.dense().astype(np.float16) for name, one in tensors.items()}))


@pytest.mark.parametrize("bits", [bits for bits in BITS if bits <= 16])
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_no_file_is_larger_than_dense_16_bits(bits, kind):
    random = np.random.default_rng(bits)
    for density in DENSITIES:
        weights = {}
        for name, shape in shapes().items():
            weight = random.normal(size=shape) if kind == "normal" else random.uniform(-1, 1, size=shape)
            keep = random.random(shape) < density if len(shape) == 2 else True
            weights[name] = np.where(keep, weight, 0).astype(np.float32)
        tensors = {name: stored(weight, bits) for name, weight in weights.items()}
        data, records = write_weights(tensors, {})
        assert len(data) <= in_16_bits(tensors), density
        # And smaller with fewer bits: near the entropy of the codes, beside names and coding tables.
        bound = sum(record["entropy_bound_bytes"] for record in records.values())
        assert len(data) <= 1.05 * bound + 300 * len(tensors), density


def test_floats_that_cannot_be_packed_take_no_more_than_their_names_in_the_file():
    random = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes().items():
        half = random.integers(0, 1 << 16, size=shape, dtype=np.uint16).view(np.float16)
        tensors[name] = StoredTensor(np.where(np.isfinite(half), half, np.float16(1)), None, 16)
    data, records = write_weights(tensors, {})
    header = read_header(memoryview(data))
    metadata = len(json.dumps({"__metadata__": header.metadata}))
    assert len(data) <= in_16_bits(tensors) + metadata + 8  # a header is filled up to a multiple of 8
    assert sum(record["bytes"] for record in records.values()) <= 2 * sum(one.values.size for one in tensors.values())
    for name, one in read_tensors(memoryview(data), records, has_scales_apart=False).items():
        assert one.values.tobytes() == tensors[name].values.tobytes()
        # What was read keeps nothing of the file in memory.
        assert not np.may_share_memory(one.values, np.frombuffer(data, dtype=np.uint8))


@pytest.mark.parametrize("groups", [2, 8, 64])
def test_scales_of_groups_come_back_and_others_are_refused(groups):
    random = np.random.default_rng(groups)
    codes = random.integers(-7, 8, size=(6, 64)).astype(np.int8)
    scale = random.random((6, groups)).astype(np.float16)
    tensor = StoredTensor(codes, scale, 4)
    data, records = write_weights({"a": tensor, "b": round_floats(np.ones(3))}, {})
    assert check_weights(memoryview(data), records, has_scales_apart=False) == {}
    found = read_tensors(memoryview(data), records, has_scales_apart=False)["a"]
    assert np.array_equal(found.values, codes)
    assert np.array_equal(found.scale, tensor.scale)
    assert np.array_equal(found.dense(), tensor.dense())
    for wrong in (scale.T, scale.reshape(-1), scale.astype(np.float32)):
        packet, own = encode(wrong), encode(codes)
        body = varint(len(packet)) + packet + own
        damaged = write_container({"a": ("U8", (len(body),), body), "b": ("F16", (3,), bytes(6))}, {})
        with pytest.raises(ArtifactError, match="float16 scale"):
            check_weights(memoryview(damaged), records, has_scales_apart=False)


def test_scales_that_repeat_take_fewer_bytes_and_all_lie_in_one_entry_with_their_integers():
    random = np.random.default_rng(0)
    codes = random.integers(-7, 8, size=(2_000, 64)).astype(np.int8)
    scale = random.normal(0.02, 0.001, size=(2_000, 8)).astype(np.float16)
    data, records = write_weights({"a": StoredTensor(codes, scale, 4)}, {})
    assert set(read_header(memoryview(data)).entries) == {"a"}
    # The high byte of numbers of one size is nearly the same in all.
    assert records["a"]["bytes"] < len(encode(codes)) + 0.75 * scale.nbytes
    assert read_tensors(memoryview(data), records, has_scales_apart=False)["a"].scale.tobytes() == scale.tobytes()


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_model_of_some_size_is_within_two_percent_of_the_bound(bits):
    """Names and coding tables are most of what is above it, so that a model of under a megabyte may be farther."""
    random = np.random.default_rng(bits)
    shapes = {"embeddings.word_embeddings.weight": (8_000, 384)}
    for block in range(2):
        sizes = {"query": (384, 384), "key": (384, 384), "intermediate": (1536, 384), "output": (384, 1536)}
        shapes |= {f"bert.encoder.layer.{block}.{name}.weight": size for name, size in sizes.items()}
        shapes |= {f"bert.encoder.layer.{block}.{name}.bias": size[:1] for name, size in sizes.items()}
    tensors = {}
    for name, shape in shapes.items():
        weight = random.standard_t(4, size=shape).astype(np.float32)  # heavier tails than a bell
        tensors[name] = stored(weight, bits) if len(shape) == 2 else round_floats(weight)
    data, records = write_weights(tensors, {})
    assert len(data) <= 1.02 * sum(record["entropy_bound_bytes"] for record in records.values())
