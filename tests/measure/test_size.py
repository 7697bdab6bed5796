"""Sizes: the bytes on disk, and the paper's formula computed weight by weight."""

import math
from dataclasses import replace

import pytest

from multipress.errors import ArtifactError
from multipress.measure import ideal_bytes, measure_size

KEY = "bert.encoder.layer.0.attention.self.key.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


def by_name(artifact) -> dict[str, float]:
    return {row.name: row.value for row in measure_size(artifact)}


def test_sizes_are_those_of_the_files_and_arrays(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a", bits=8, sparsity=0.5)
    weights = artifact.dense_weights()
    sizes = by_name(artifact)
    assert sizes["weights_bytes"] == (tmp_path / "a" / "model.safetensors").stat().st_size
    assert sizes["package_bytes"] == sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    assert sizes["num_parameters"] == sum(weight.size for weight in weights.values())
    assert sizes["nonzeros"] == sum(int((weight != 0).sum()) for weight in weights.values())
    assert sizes["dense_bytes"] == 4 * sizes["num_parameters"]
    assert all(isinstance(value, int) for value in sizes.values())
    assert {row.unit for row in measure_size(artifact)} == {"bytes", "count"}
    assert {row.run_id for row in measure_size(artifact)} == {"0123456789ab"}


def test_the_ideal_size_is_four_bytes_a_weight_without_quantization(write_tiny, tmp_path):
    dense = write_tiny(tmp_path / "dense", bits=16)
    assert ideal_bytes(dense) == by_name(dense)["dense_bytes"]


def test_the_ideal_size_leaves_out_what_pruning_removed_and_not_other_zeros(write_tiny, tmp_path):
    # Half of the codes of each matrix are zero, but only 300 are said to be pruned.
    artifact = write_tiny(tmp_path / "a", bits=8, sparsity=0.5, pruned={KEY: 300})
    sizes = by_name(artifact)
    assert sizes["nonzeros"] < sizes["num_parameters"] - 300
    assert sizes["ideal_bytes"] == sizes["num_parameters"] - 300
    assert sizes["num_pruned"] == 300


@pytest.mark.parametrize("bits", [8, 6, 4, 3, 2])
def test_every_weight_counts_the_bits_of_the_linear_weights(write_tiny, tmp_path, bits):
    artifact = write_tiny(tmp_path / "a", bits=bits)
    assert ideal_bytes(artifact) == math.ceil(by_name(artifact)["num_parameters"] * bits / 8)


def test_embeddings_count_their_own_bits(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a", bits=4)
    manifest = artifact.manifest
    wide = manifest["tensors"][WORDS] | {"bits": 8}
    changed = replace(artifact, manifest=manifest | {"tensors": manifest["tensors"] | {WORDS: wide}})
    assert ideal_bytes(changed) == ideal_bytes(artifact) + math.prod(wide["shape"]) // 2


def test_more_pruned_weights_than_zeros_are_an_error(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a", bits=8, sparsity=0.5)
    manifest = artifact.manifest
    facts = manifest["facts"] | {"pruned": {KEY: 32 * 32}}
    with pytest.raises(ArtifactError, match="said to be pruned"):
        ideal_bytes(replace(artifact, manifest=manifest | {"facts": facts}))
