"""The artifact: what goes in comes out, and nothing else opens."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress import artifact as artifact_module
from multipress import manifest as manifest_module
from multipress.artifact import FORMAT_VERSION, Artifact, StoredTensor, open_artifact, round_floats, write_artifact
from multipress.errors import ArtifactError
from multipress.packing import encode
from multipress.packing.container import read_header, write_container
from multipress.packing.stream import varint

FILES = ("config.json", "tokenizer.bin", "tokenizer_config.json", "graph.onnx.zst", "model.safetensors")
FACTS = {
    "run_id": "0123456789ab",
    "task": {
        "name": "t",
        "target": "classes",
        "labels": ["no", "yes"],
        "metrics": ["accuracy"],
        "score": "accuracy",
    },
    "max_length": 16,
    "pruned": {"a.weight": 5},
    "quantization": {"bits": 4, "embedding_bits": 4, "activation_bits": None},
}


def tensors() -> dict[str, StoredTensor]:
    random = np.random.default_rng(0)
    codes = random.integers(-7, 8, size=(20, 30)).astype(np.int8)
    codes[0] = 0
    special = np.array([0.0, -0.0, np.nan, np.inf, 1.0], dtype=np.float16)
    return {
        "a.weight": StoredTensor(codes, random.random(20).astype(np.float16), 4),
        "a.bias": round_floats(random.normal(size=20)),
        "sparse": round_floats(np.eye(50)),
        "special": StoredTensor(special, None, 16),
        "large": StoredTensor(np.array(1e30, dtype=np.float32), None, 32),
        "empty": round_floats(np.zeros((0, 4))),
    }


def write(folder, **changes) -> Artifact:
    parts = {
        "tensors": tensors(),
        "aliases": {"tied.weight": "a.weight"},
        "config": {"model_type": "bert", "vocab_size": 64},
        "tokenizer_json": json.dumps({"version": "1.0", "added_tokens": [], "model": {}}),
        "graph": b"graph" * 100,
        "facts": FACTS,
    }
    return write_artifact(folder, **(parts | changes))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Artifact:
    return write(tmp_path_factory.mktemp("artifact") / "a")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original.folder, tmp_path / "copy")


def restamp(folder, names=FILES, **changes) -> None:
    """Make the manifest fit the files again, as a careful forger would, and change entries of it."""
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"files": {}} | changes
    del manifest["sha256"]
    for name in names:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["weights_bytes"] = (folder / "model.safetensors").stat().st_size
    others = sum((folder / name).stat().st_size for name in names)
    (folder / "manifest.json").write_bytes(manifest_module.manifest_bytes(manifest, others))


def rewrite_weights(folder, change) -> None:
    data = memoryview((folder / "model.safetensors").read_bytes())
    header = read_header(data)
    entries = {name: (e.dtype, e.shape, bytes(data[e.start : e.end])) for name, e in header.entries.items()}
    (folder / "model.safetensors").write_bytes(write_container(change(entries), header.metadata))
    restamp(folder)


def test_tensors_come_back_bit_for_bit(original):
    stored = tensors()
    found = open_artifact(original.folder).tensors()
    assert set(found) == set(stored)
    for name, tensor in stored.items():
        assert (found[name].values.dtype, found[name].values.shape) == (
            tensor.values.dtype,
            tensor.values.shape,
        )
        assert found[name].values.tobytes() == tensor.values.tobytes()
        assert found[name].bits == tensor.bits
        if tensor.scale is not None:
            assert found[name].scale.tobytes() == tensor.scale.tobytes()


def test_the_other_parts_come_back(original):
    opened = open_artifact(original.folder)
    assert opened.graph() == b"graph" * 100
    assert json.loads(opened.tokenizer_json())["version"] == "1.0"
    assert opened.facts == FACTS
    assert opened.config["quantization_config"]["bits"] == 4


def test_tied_weights_are_stored_once_and_dense_under_both_names(original):
    weights = original.dense_weights()
    assert weights["tied.weight"] is weights["a.weight"]
    assert "tied.weight" not in safetensors.numpy.load_file(original.folder / "model.safetensors")


def test_the_manifest_says_what_is_there(original):
    records = original.manifest["tensors"]
    assert original.weights_bytes == (original.folder / "model.safetensors").stat().st_size
    assert original.package_bytes == sum(file.stat().st_size for file in original.folder.iterdir())
    for name, tensor in tensors().items():
        assert records[name]["shape"] == list(tensor.values.shape)
        assert records[name]["nonzeros"] == int((tensor.values != 0).sum())
    stored = safetensors.numpy.load_file(original.folder / "model.safetensors")
    assert sum(record["bytes"] for record in records.values()) == sum(array.nbytes for array in stored.values())


def test_the_same_parts_give_the_same_bytes(original, tmp_path):
    again = write(tmp_path / "again")
    for name in (*FILES, "manifest.json"):
        assert (again.folder / name).read_bytes() == (original.folder / name).read_bytes()


def test_an_artifact_is_written_over_an_older_one(folder):
    write(folder, graph=b"other")
    assert open_artifact(folder).graph() == b"other"


def test_nothing_is_written_into_a_folder_of_other_things(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ArtifactError, match=r"thesis\.tex"):
        write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_half_written_artifact_is_refused_and_can_be_written_again(tmp_path, monkeypatch):
    count = iter(range(100))

    def stop_at_the_fourth(path, data):
        if next(count) == 3:
            raise KeyboardInterrupt
        path.write_bytes(data)

    write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(artifact_module, "write_bytes", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        open_artifact(tmp_path)
    write(tmp_path)
    open_artifact(tmp_path)


def test_the_weights_are_never_larger_than_the_dense_half_precision_file(write_tiny, tmp_path):
    dense = write_tiny(tmp_path / "dense", bits=16)
    reference = {name: tensor.values for name, tensor in dense.tensors().items()}
    limit = len(safetensors.numpy.save(reference))
    packed = [write_tiny(tmp_path / str(bits), bits=bits).weights_bytes for bits in (8, 6, 4, 3, 2)]
    sizes = [dense.weights_bytes, *packed]
    assert all(size <= limit for size in sizes)
    assert sizes == sorted(sizes, reverse=True)


def test_a_model_card_and_traces_of_git_do_not_matter(folder):
    (folder / "README.md").write_text("a card")
    (folder / ".gitattributes").write_text("")
    assert open_artifact(folder).package_bytes == open_artifact(folder).package_bytes


# What must not open.


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_every_flipped_byte_is_refused(folder, name):
    path = folder / name
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(ArtifactError):
            open_artifact(folder).tensors()


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_every_truncation_and_longer_file_is_refused(folder, name):
    path = folder / name
    data = path.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 100)):
        path.write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=name if name != "manifest.json" else None):
            open_artifact(folder)
    path.write_bytes(data + b" ")
    with pytest.raises(ArtifactError):
        open_artifact(folder)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_or_a_link_is_named(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=name):
        open_artifact(folder)
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=rf"{name} of .* is a link"):
        open_artifact(folder)


def test_an_unexpected_file_is_named(folder):
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin"):
        open_artifact(folder)


def test_no_folder_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="no artifact"):
        open_artifact(tmp_path / "nowhere")


def test_every_removed_renamed_or_added_tensor_is_named(folder):
    names = list(read_header(memoryview((folder / "model.safetensors").read_bytes())).entries)
    pristine = (folder / "model.safetensors").read_bytes()
    for name in names:
        for change in (
            lambda entries, name=name: {key: value for key, value in entries.items() if key != name},
            lambda entries, name=name: {key + "2" * (key == name): value for key, value in entries.items()},
        ):
            (folder / "model.safetensors").write_bytes(pristine)
            rewrite_weights(folder, change)
            with pytest.raises(ArtifactError, match=name):
                open_artifact(folder)
    (folder / "model.safetensors").write_bytes(pristine)
    rewrite_weights(folder, lambda entries: entries | {"more": ("U8", (1,), b"\0")})
    with pytest.raises(ArtifactError, match="more is not expected"):
        open_artifact(folder)


def test_every_transposed_or_cast_tensor_is_refused(folder):
    pristine = (folder / "model.safetensors").read_bytes()
    scale = encode(np.ones(30, dtype=np.float16))
    wide = encode(np.ones(10, dtype=np.float32))
    shape = open_artifact(folder).tensors()["a.weight"].values.shape
    wrong = [
        ("a.weight", varint(len(scale)) + scale + encode(np.zeros((30, 20), dtype=np.int8))),
        ("a.weight", varint(len(wide)) + wide + encode(np.zeros(shape, dtype=np.int8))),
        ("a.weight", encode(np.zeros(shape, dtype=np.int8))),
        ("sparse", encode(np.eye(50, dtype=np.float32))),
    ]
    for name, packet in wrong:
        (folder / "model.safetensors").write_bytes(pristine)
        rewrite_weights(folder, lambda e, name=name, packet=packet: e | {name: ("U8", (len(packet),), packet)})
        with pytest.raises(ArtifactError, match=name):
            open_artifact(folder)
    for name, dtype, shape in (
        ("a.bias", "F16", (4, 5)),
        ("a.bias", "F32", (10,)),
    ):
        (folder / "model.safetensors").write_bytes(pristine)
        rewrite_weights(folder, lambda e, name=name, dtype=dtype, shape=shape: e | {name: (dtype, shape, e[name][2])})
        with pytest.raises(ArtifactError, match=name):
            open_artifact(folder)


def test_other_values_under_a_fitting_header_are_refused_when_decoded(folder):
    def change(entries):
        dtype, shape, data = entries["a.bias"]
        return entries | {"a.bias": (dtype, shape, data[::-1])}

    rewrite_weights(folder, change)
    with pytest.raises(ArtifactError, match=r"a\.bias"):
        open_artifact(folder).tensors()


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 4},
        {"format_version": 5},
        {"packing_version": 99},
        {"format_version": None},
        {"facts": []},
        {"facts": {}},
        {"facts": FACTS | {"max_length": 0}},
        {"facts": FACTS | {"max_length": True}},
        {"facts": FACTS | {"task": {"target": "classes", "labels": [1], "metrics": []}}},
        {"facts": FACTS | {"pruned": {"a.weight": 600}}},
        {"facts": FACTS | {"pruned": {"a.weight": -1}}},
        {"facts": FACTS | {"pruned": {"nothing": 1}}},
        {"facts": FACTS | {"pruned": []}},
        {"facts": FACTS | {"dropped": "x"}},
        {"facts": FACTS | {"dropped": -1}},
        {"facts": FACTS | {"quantization": [1]}},
        {"facts": FACTS | {"quantization": 0}},
        {"facts": FACTS | {"quantization": {"bits": "x"}}},
        {"facts": FACTS | {"quantization": {"bits": [1]}}},
        {"facts": FACTS | {"quantization": {"bits": 10**400}}},
        {"tensors": {}},
        {"tensors": {"../up": {}}},
        {"tensors": {"a.weight": 1}},
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_true_is_refused(folder, changes):
    restamp(folder, **changes)
    with pytest.raises(ArtifactError):
        open_artifact(folder)


@pytest.mark.parametrize("key", ["bytes", "nonzeros", "entropy_bound_bytes"])
def test_a_record_of_a_tensor_with_an_endless_number_is_refused(folder, key):
    tensors = json.loads((folder / "manifest.json").read_bytes())["tensors"]
    tensors["a.weight"][key] = 10**400
    restamp(folder, tensors=tensors)
    with pytest.raises(ArtifactError, match="cannot be"):
        open_artifact(folder)


def test_sizes_that_are_not_those_of_the_files_are_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["sha256"]
    for key in ("weights_bytes", "package_bytes"):
        sealed = manifest_module._seal(manifest | {key: manifest[key] + 1})
        (folder / "manifest.json").write_bytes(sealed)
        with pytest.raises(ArtifactError, match="sizes"):
            open_artifact(folder)


def test_a_config_that_names_code_is_refused(folder):
    for config in ({"model_type": "bert", "auto_map": {}}, {"vocab_size": 3}):
        (folder / "config.json").write_text(json.dumps(config))
        restamp(folder)
        with pytest.raises(ArtifactError, match=r"config\.json"):
            open_artifact(folder)


def test_a_graph_that_would_fill_the_memory_is_refused(folder):
    import zstandard

    (folder / "graph.onnx.zst").write_bytes(zstandard.ZstdCompressor().compress(b"\0" * 200_000_000))
    restamp(folder)
    with pytest.raises(ArtifactError, match="declares 200000000 bytes"):
        open_artifact(folder).graph()


READS = {
    "graph.onnx.zst": Artifact.graph,
    "tokenizer.bin": Artifact.tokenizer_json,
    "model.safetensors": Artifact.tensors,
}


@pytest.mark.parametrize("name", READS)
def test_a_file_changed_after_opening_is_noticed(folder, name):
    opened = open_artifact(folder)
    data = (folder / name).read_bytes()
    for changed in (b"other", data[:-1] + bytes([data[-1] ^ 1])):
        (folder / name).write_bytes(changed)
        with pytest.raises(ArtifactError, match=name):
            READS[name](opened)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        READS[name](opened)


@pytest.mark.parametrize("name", READS)
def test_a_file_written_again_with_the_same_bytes_is_fine(folder, name):
    opened = open_artifact(folder)
    expected = READS[name](open_artifact(folder))
    (folder / name).write_bytes((folder / name).read_bytes())
    assert repr(READS[name](opened)) == repr(expected)


@pytest.mark.parametrize("changed_to", [b"", b"x" * 5000])
def test_weights_changed_while_nobody_could_see_it_are_refused_as_they_are_decoded(folder, changed_to, monkeypatch):
    # A clock is coarse: a file may change and keep its size and times.
    monkeypatch.setattr(artifact_module, "_trace", lambda path: ())
    opened = open_artifact(folder)
    path = folder / "model.safetensors"
    header = read_header(memoryview(path.read_bytes()))
    weights = bytearray(path.read_bytes())
    weights[header.entries["a.weight"].start + 10] ^= 1  # in its scale
    moved = write_container({"a.weight": ("U8", (len(changed_to),), changed_to)}, {"format": "multipress"})
    for data in (bytes(weights), moved, changed_to):
        path.write_bytes(data)
        with pytest.raises(ArtifactError):
            opened.tensors()


def test_each_file_is_hashed_once_to_open_it_and_use_it(folder, monkeypatch):
    hashed = []
    sha256 = manifest_module.sha256
    for module in (artifact_module, manifest_module):
        monkeypatch.setattr(module, "sha256", lambda data: hashed.append(len(data)) or sha256(data))
    opened = open_artifact(folder)
    for read in READS.values():
        read(opened)
        read(opened)
    sizes = sorted((folder / name).stat().st_size for name in FILES)
    assert sum((Counter(sizes) - Counter(hashed)).values()) == 0
    assert len(hashed) == len(FILES) + 1  # and the manifest's own seal


PEAK = """
import sys
from pathlib import Path
from multipress.artifact import open_artifact
from multipress.packing import stream
def memory(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
open("/proc/self/clear_refs", "w").write("5")  # the highest so far is that of now
before = memory("VmHWM")
wasted = b"1" * int(sys.argv[2])
tensors = open_artifact(Path(sys.argv[1])).tensors()
size = sum(t.values.nbytes + (0 if t.scale is None else t.scale.nbytes) for t in tensors.values())
print(memory("VmHWM") - before, size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells a process its highest memory")
def test_reading_takes_no_more_memory_than_the_weights_and_what_the_largest_tensor_needs(tmp_path):
    """Matrices in every layout, and words that are more than half of all, as in models of many languages."""
    random = np.random.default_rng(0)
    scale = random.random(20_000).astype(np.float16)
    many = {}
    for number, wide in enumerate((0.2, 0.6, 2, 40)):
        codes = random.normal(scale=wide, size=(20_000, 1_000)).round().clip(-127, 127).astype(np.int8)
        many[f"layer.{number}.weight"] = StoredTensor(codes, scale, 8)
    many["layer.plain"] = round_floats(random.normal(size=(1_000, 5_000)))
    many["layer.sparse"] = round_floats(random.normal(size=(1_000, 5_000)) * (random.random((1_000, 5_000)) < 0.5))
    words = random.standard_normal((20_000, 6_000), dtype=np.float32)
    words = (words * 30).round().clip(-127, 127).astype(np.int8)  # which are stored in seven bits each
    many["words.weight"] = StoredTensor(words, scale, 8)
    folder = write(tmp_path / "large", tensors=many, aliases={}, facts=FACTS | {"pruned": {}}).folder
    total = sum(one.values.nbytes for one in many.values()) + 5 * scale.nbytes
    as_floats = 4 * sum(one.values.size for one in many.values())
    assert {encode(many[f"layer.{number}.weight"].values)[1] for number in range(4)} == {1, 2, 3, 4}
    num_words, stored = words.size, open_artifact(folder).manifest["tensors"]["words.weight"]["bytes"]
    assert stored > 0.8 * num_words
    del many, codes, words

    def peak(wasted):
        command = [sys.executable, "-c", PEAK, str(folder), str(wasted)]
        took, size = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert size == total
        return took

    promised = total + stored + num_words + 64 * 2**20
    assert promised < as_floats + 64 * 2**20
    assert total < peak(0) <= promised
    assert peak(300_000_000) > promised  # a waste would be seen


GOLDEN = Path(__file__).parent / "golden"


def test_an_older_format_is_replaced_by_what_is_written_and_told_from_the_newer_by_its_files(folder):
    shutil.rmtree(folder)
    shutil.copytree(GOLDEN / "format-2", folder)
    assert open_artifact(folder).tokenizer_json() == (folder / "tokenizer.json").read_text()
    names = ["tokenizer.json" if name == "tokenizer.bin" else name for name in FILES]
    restamp(folder, names, format_version=3)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json, which is no part"):
        open_artifact(folder)
    assert {path.name for path in write(folder).folder.iterdir()} == {*FILES, "manifest.json"}


@pytest.mark.parametrize(
    ("made", "version", "message"),
    [
        ("format-3-groups", 4, "blocks have lost heads"),
        ("format-3-groups", 5, "scales of activations"),
        ("format-4", 3, "blocks have lost heads"),
        ("format-4", 5, "scales of activations"),
        ("format-5", 4, "scales of activations"),
        ("format-5", 6, "scale"),
        ("format-6-groups", 3, "scale"),
    ],
)
def test_a_format_that_is_not_the_one_it_says_is_refused(folder, made, version, message):
    shutil.rmtree(folder)
    shutil.copytree(GOLDEN / made, folder)
    open_artifact(folder)
    restamp(folder, format_version=version)
    with pytest.raises(ArtifactError, match=message):
        open_artifact(folder)


def test_the_format_before_the_manifest_was_sealed_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format_version"] == FORMAT_VERSION
    del manifest["sha256"]
    manifest["format_version"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":"), ensure_ascii=False))
    with pytest.raises(ArtifactError, match="format_version 1; 2 and 3 and 4 and 5 and 6 and 7 can be read here"):
        open_artifact(folder)


def test_parts_that_cannot_be_stored_are_refused_before_anything_is_written(tmp_path):
    stored = tensors()
    for changes in (
        {"aliases": {"a.bias": "a.weight"}},
        {"aliases": {"tied": "nowhere"}},
        {"tensors": stored | {"a/b": stored["a.bias"]}},
        {"facts": FACTS | {"pruned": {"a.bias": 3}}},
        {"facts": FACTS | {"max_length": None}},
    ):
        with pytest.raises(ArtifactError):
            write(tmp_path / "new", **changes)
        assert not (tmp_path / "new").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_in_any_place_of_the_manifest_opens_or_is_an_artifact_error(original, data):
    with tempfile.TemporaryDirectory() as name:
        folder = shutil.copytree(original.folder, Path(name) / "copy")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        del manifest["sha256"]
        place = manifest
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or not place[key] or data.draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        place[key] = data.draw(JSON)
        with contextlib.suppress(ArtifactError, ValueError):
            (folder / "manifest.json").write_bytes(manifest_module._seal(manifest))
        with contextlib.suppress(ArtifactError):
            open_artifact(folder).tensors()
