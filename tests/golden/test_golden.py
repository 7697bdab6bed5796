"""Artifacts that were written before open as they did, and a reader written from the page alone reads the same."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import zstandard

from golden.make import HERE, RECIPES, facts_of
from multipress.artifact import FORMAT_VERSION, open_artifact
from multipress.errors import ArtifactError
from multipress.manifest import BLOCK_SHAPES_VERSION, SCALES_VERSION, TOKENIZER
from packing import reference_decoder

EXPECTED = json.loads((HERE / "expected.json").read_text())


def unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data)


@pytest.mark.parametrize("name", RECIPES)
def test_it_decodes_and_predicts_as_when_it_was_made(name):
    found = facts_of(HERE / name)
    assert found["weights"] == EXPECTED[name]["weights"]
    assert np.abs(np.array(found["logits"]) - EXPECTED[name]["logits"]).max() < 1e-5


def test_there_is_one_of_every_version_that_is_read():
    versions = {json.loads((HERE / name / "manifest.json").read_text())["format_version"] for name in RECIPES}
    assert versions == set(TOKENIZER)
    assert {
        FORMAT_VERSION,
        BLOCK_SHAPES_VERSION,
        SCALES_VERSION,
    } <= versions  # of what can lie in a folder, each has one


@pytest.mark.parametrize("name", RECIPES)
def test_a_reader_from_the_page_alone_reads_the_same_weights(name):
    manifest = json.loads((HERE / name / "manifest.json").read_text())
    found = reference_decoder.weights((HERE / name / "model.safetensors").read_bytes(), manifest, unzstd)
    expected = open_artifact(HERE / name).dense_weights()
    assert set(found) == set(expected)
    for tensor, (shape, numbers) in found.items():
        assert np.array_equal(np.array(numbers, dtype=np.float32).reshape(shape), expected[tensor]), tensor


@pytest.mark.parametrize("name", RECIPES)
def test_hashes_are_what_the_page_says(name):
    """The seal is over the file's own bytes; a tensor's hash over its numbers as they are stored, then its scale's."""
    data = (HERE / name / "manifest.json").read_bytes()
    before, after = data.rsplit(b',"sha256":"', 1)
    assert hashlib.sha256(before + b"}").hexdigest() == after[:64].decode()
    manifest = json.loads(data)
    weights = (HERE / name / "model.safetensors").read_bytes()
    for tensor, (numbers, scale) in reference_decoder.stored_bytes(weights, manifest, unzstd).items():
        assert hashlib.sha256(numbers + scale).hexdigest() == manifest["tensors"][tensor]["sha256"], tensor


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_flipped_bytes_and_truncations_are_refused(name, tmp_path):
    """Every byte of one golden artifact; of the others both ends of each file and some between."""
    folder = tmp_path / name
    shutil.copytree(HERE / name, folder)
    random = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        positions = range(len(data))
        if name != "format-6-tensor-steps":
            between = random.integers(len(data), size=80).tolist()
            positions = sorted({*positions[:40], *positions[-40:], *between})
        for position in positions:
            flipped = data[position] ^ 1 << position % 8
            for changed in (data[:position] + bytes([flipped]) + data[position + 1 :], data[:position]):
                path.write_bytes(changed)
                with pytest.raises(ArtifactError):
                    open_artifact(folder).tensors()
        path.write_bytes(data)
    assert facts_of(folder)["weights"] == EXPECTED[name]["weights"]
