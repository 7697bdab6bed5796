"""The safetensors container: readable by the reference library, and read strictly."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

from multipress.errors import ArtifactError
from multipress.packing.container import read_header, write_container

ENTRIES = {
    "wide": ("F32", (2, 3), np.arange(6, dtype="<f4").tobytes()),
    "half": ("F16", (5,), np.arange(5, dtype="<f2").tobytes()),
    "bytes": ("U8", (7,), bytes(range(7))),
    "nothing": ("U8", (0,), b""),
}


def container(header: object, data: bytes = b"\0\0\0\0") -> memoryview:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return memoryview(struct.pack("<Q", len(text)) + text + data)


def entry(dtype="F32", shape=(1,), offsets=(0, 4)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_the_reference_library_reads_what_is_written():
    data = write_container(ENTRIES, {"format": "multipress"})
    found = safetensors.numpy.load(data)
    assert set(found) == set(ENTRIES)
    for name, (_, shape, content) in ENTRIES.items():
        assert (found[name].shape, found[name].tobytes()) == (shape, content)


def test_what_the_reference_library_writes_is_read():
    arrays = {"b": np.ones((3, 4), dtype=np.float32), "a": np.zeros(5, dtype=np.float16)}
    data = memoryview(safetensors.numpy.save(arrays, {"key": "value"}))
    header = read_header(data)
    assert header.metadata == {"key": "value"}
    for name, array in arrays.items():
        found = header.entries[name]
        assert (found.shape, bytes(data[found.start : found.end])) == (array.shape, array.tobytes())


def test_data_start_at_a_multiple_of_eight():
    data = write_container(ENTRIES, {})
    assert read_header(memoryview(data)).entries["wide"].start % 8 == 0


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 1}',
        b"[" * 100_000,
        b"{" + b"".join(b'"%d":1,' % (number % 80_000) for number in range(160_000)) + b'"0":1}',  # would take hours
        b"\xff",
        {},  # four bytes belong to nothing
        {"a": entry(offsets=(0, 4)), "b": entry(offsets=(0, 4))},
        {"a": entry(shape=(2,), offsets=(0, 8))},
        {"a": entry(offsets=(1, 5))},
        {"a": entry(offsets=(4, 0))},
        {"a": entry(offsets=(-4, 0))},
        {"a": entry(dtype="I64")},
        {"a": entry(dtype=["F32"])},
        {"a": entry(shape=(True,))},
        {"a": entry(shape=(1.0,))},
        {"a": entry(shape=(2**60,))},
        {"a": entry(shape=(-1, -1))},
        {"a": entry(shape=(1,) * 9)},
        {"a": entry() | {"more": 1}},
        {"a": {"dtype": "F32"}},
        {"a": 5},
        {"__metadata__": {"a": 5}, "a": entry()},
        {"__metadata__": [], "a": entry()},
    ],
    ids=str,
)
def test_headers_that_do_not_describe_the_file_are_refused(header):
    with pytest.raises(ArtifactError):
        read_header(container(header))


def test_a_header_longer_than_the_file_is_refused():
    for data in (b"", b"\0" * 7, struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 3) + b"{}"):
        with pytest.raises(ArtifactError):
            read_header(memoryview(data))
