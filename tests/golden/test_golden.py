"""Artifacts that were written before open as they did, and a reader written from the page alone reads the same."""

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
    assert {FORMAT_VERSION, BLOCK_SHAPES_VERSION, SCALES_VERSION} <= versions


@pytest.mark.parametrize("name", RECIPES)
def test_a_reader_from_the_page_alone_reads_the_same_weights(name):
    manifest = json.loads((HERE / name / "manifest.json").read_text())
    found = reference_decoder.weights((HERE / name / "model.safetensors").read_bytes(), manifest, unzstd)
    expected = open_artifact(HERE / name).dense_weights()
    assert set(found) == set(expected)
    for tensor, (shape, numbers) in found.items():
        assert np.array_equal(np.array(numbers, dtype=np.float32).reshape(shape), expected[tensor]), tensor


@pytest.mark.slow
@pytest.mark.parametrize("name", ["format-3-tensor-steps"])
def test_every_flipped_byte_and_every_truncation_is_refused(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(HERE / name, folder)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for position in range(len(data)):
            flipped = data[position] ^ 1 << position % 8
            for changed in (data[:position] + bytes([flipped]) + data[position + 1 :], data[:position]):
                path.write_bytes(changed)
                with pytest.raises(ArtifactError):
                    open_artifact(folder).tensors()
        path.write_bytes(data)
    assert facts_of(folder)["weights"] == EXPECTED[name]["weights"]
