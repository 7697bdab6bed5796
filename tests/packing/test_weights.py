"""The weights file is never larger than the same weights in dense 16 bits, whatever was done to them."""

import json

import numpy as np
import pytest
import safetensors.numpy

from multipress.errors import ArtifactError
from multipress.packing.container import read_header
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
    for name, one in read_tensors(memoryview(data), records).items():
        assert one.values.tobytes() == tensors[name].values.tobytes()
        # What was read keeps nothing of the file in memory.
        assert not np.may_share_memory(one.values, np.frombuffer(data, dtype=np.uint8))


@pytest.mark.parametrize("groups", [2, 8, 64])
def test_scales_of_groups_come_back_and_others_are_refused(groups):
    random = np.random.default_rng(groups)
    codes = random.integers(-7, 8, size=(6, 64)).astype(np.int8)
    tensor = StoredTensor(codes, random.random((6, groups)).astype(np.float16), 4)
    data, records = write_weights({"a": tensor, "b": round_floats(np.ones(3))}, {})
    assert check_weights(memoryview(data), records) == {}
    found = read_tensors(memoryview(data), records)["a"]
    assert np.array_equal(found.values, codes)
    assert np.array_equal(found.scale, tensor.scale)
    assert np.array_equal(found.dense(), tensor.dense())
    shape = f'"shape":[6,{groups}]'.encode()
    assert data.count(shape) == 1
    for wrong in (f'"shape":[{groups},6]', f'"shape":[{6 * groups}]'):
        if len(wrong) <= len(shape):
            damaged = data.replace(shape, wrong.encode() + b" " * (len(shape) - len(wrong)))
            with pytest.raises(ArtifactError, match="float16 scale"):
                check_weights(memoryview(damaged), records)
