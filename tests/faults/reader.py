"""Feed the readers of packed bytes what nobody wrote, and count what they do.

    python tests/faults/reader.py trips --count 1000000
    python tests/faults/reader.py flips --of format-7-gaps
    python tests/faults/reader.py fuzz --minutes 30 --corpus FOLDER    # pip install atheris

`trips` packs so many random arrays of every dtype, shape and density and unpacks them, one in a thousand of them large,
and one in ten in a weights file besides, integers with the scales of rows or groups; asked for: the same bits, a packet
no larger than the array and its header. `flips` opens and decodes a golden artifact with one bit of each of its bytes
changed, and cut before each; asked for: `ArtifactError`. `fuzz` lets libFuzzer change packets, containers, tokenizers,
manifests and the entries of tensors, guided by the branches that are taken; asked for: an array or `ArtifactError`,
never another error, within a second and 512 MB. It ends with 1, and the input that did it beside the corpus, where
anything else comes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

DTYPES = ("int8", "float16", "float32")


def array_of(random: np.random.Generator) -> np.ndarray:
    """Up to 400 items, seldom a million: a bell of some width, or any bits at all, some share of them zero."""
    shape = tuple(int(size) for size in random.integers(0, 8, size=random.integers(0, 4)))
    if random.random() < 0.2:
        shape = (int(random.integers(1, 400)),)
    if random.random() < 0.001:
        shape = (int(10 ** random.uniform(4, 6)),)
    dtype = np.dtype(random.choice(DTYPES))
    count = int(np.prod(shape))
    if random.random() < 0.3:
        values = random.integers(0, 256, size=count * dtype.itemsize, dtype=np.uint8).view(dtype)
    else:
        wide = random.normal(scale=2.0 ** random.integers(-3, 7), size=count)
        values = (np.clip(wide.round(), -127, 127) if dtype == np.int8 else wide).astype(dtype)
    keep = random.random(count) < random.choice([1.0, 0.5, 0.1, 0.01])
    return np.where(keep, values, np.zeros((), dtype)).astype(dtype).reshape(shape)


def tensor_of(random: np.random.Generator) -> Any:
    """Integers of some bits with a scale for all, for each row or for each group of a row, or floats."""
    from multipress.packing.tensor import StoredTensor

    rows, groups, size = (int(number) for number in random.integers(1, 9, size=3))
    bits = int(random.choice([2, 3, 4, 6, 8, 16]))
    if bits == 16:
        return StoredTensor(random.normal(size=(rows, size)).astype(np.float16), None, bits)
    limit = 2 ** (bits - 1) - 1
    codes = np.clip(random.normal(scale=limit / 3, size=(rows, groups * size)).round(), -limit, limit).astype(np.int8)
    shape = (1,) if random.random() < 0.2 else (rows,) if groups == 1 else (rows, groups)
    return StoredTensor(codes, random.random(shape).astype(np.float16), bits)


def comes_back(tensor: Any) -> bool:
    """Whether a weights file gives the tensor back bit for bit."""
    from multipress.packing.weights import check_weights, read_tensors, write_weights

    data, records = write_weights({"a": tensor}, {"b": "a"})
    aliases = check_weights(memoryview(data), records, has_scales_apart=False)
    found = read_tensors(memoryview(data), records, has_scales_apart=False)["a"]
    scales = [None if one.scale is None else (one.scale.shape, one.scale.tobytes()) for one in (found, tensor)]
    same = (found.values.shape, found.values.tobytes()) == (tensor.values.shape, tensor.values.tobytes())
    return same and scales[0] == scales[1] and aliases == {"b": "a"}


def trips(count: int, seed: int) -> int:
    """Bit-exact round trips; returns how many were not."""
    from multipress.packing.packet import decode, encode
    from multipress.packing.stream import varint

    random, wrong, began = np.random.default_rng(seed), 0, time.monotonic()
    layouts: Counter[int] = Counter()
    for index in range(count):
        array = array_of(random)
        packet = encode(array)
        layouts[packet[1]] += 1
        found = decode(packet)
        same = (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        header = 4 + sum(len(varint(size)) for size in array.shape)
        if not same or len(packet) > array.nbytes + header:
            wrong += 1
            print(f"number {index} of seed {seed}: {array.dtype} {array.shape}", file=sys.stderr)
        if index % 10 == 0 and not comes_back(tensor := tensor_of(random)):
            wrong += 1
            print(f"number {index} of seed {seed}: {tensor}", file=sys.stderr)
    seconds = round(time.monotonic() - began)
    said = {"what": "trips", "count": count, "seed": seed, "wrong": wrong, "seconds": seconds}
    print(json.dumps(said | {"layouts": dict(sorted(layouts.items()))}))
    return wrong


def flips(name: str) -> int:
    """A golden artifact with each byte of each file changed, and cut there; returns how many were not refused."""
    from multipress.artifact import open_artifact
    from multipress.errors import ArtifactError

    tried = wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(Path(__file__).parents[1] / "golden" / name, Path(scratch) / name))
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            for place, byte in enumerate(data):
                flipped = bytes([byte ^ 1 << place % 8])
                for changed in (data[:place] + flipped + data[place + 1 :], data[:place]):
                    path.write_bytes(changed)
                    tried += 1
                    try:
                        open_artifact(folder).tensors()
                    except ArtifactError:
                        continue
                    wrong += 1
                    print(f"{path.name}, byte {place}", file=sys.stderr)
            path.write_bytes(data)
    print(json.dumps({"what": "flips", "of": name, "tried": tried, "wrong": wrong}))
    return wrong


def fuzz(minutes: float, corpus: Path) -> None:
    """Let libFuzzer look for an input that is read wrongly; it ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["multipress"]):
        from multipress.errors import ArtifactError
        from multipress.manifest import check_manifest, manifest_bytes, unseal
        from multipress.measure.size import ideal_bytes
        from multipress.packing.container import read_header, write_container
        from multipress.packing.packet import decode
        from multipress.packing.strict_json import parse_object
        from multipress.packing.tokenizer import unpack_tokenizer
        from multipress.packing.weights import check_weights, read_tensors

    records = entry_of(4)[1]

    def read_entry(data: bytes) -> None:
        """The entry of a tensor of integers, whose manifest says what it is."""
        recorded = {"a": {**records["a"], "bytes": len(data)}}
        file = memoryview(write_container({"a": ("U8", (len(data),), data)}, {"aliases": "{}"}))
        check_weights(file, recorded, has_scales_apart=False)
        read_tensors(file, recorded, has_scales_apart=False)

    def read_manifest(data: bytes) -> None:
        """A manifest, sealed by whoever changed it."""
        found = parse_object(data, "manifest.json")
        found.pop("sha256", None)
        with suppress(ValueError, RecursionError):
            data = manifest_bytes(found, 0)
        found = unseal(data)
        check_manifest(found)
        ideal_bytes(SimpleNamespace(manifest=found, facts=found["facts"]))

    readers = (decode, lambda rest: read_header(memoryview(rest)), unpack_tokenizer, read_entry, read_manifest)

    def read(data: bytes) -> None:
        with suppress(ArtifactError):
            readers[data[0] % len(readers) if data else 0](data[1:])

    plant(corpus)
    # An input may declare 2**15 times its length: of 1,500 bytes 49 MB, which may take a second and as much.
    limits = ["-max_len=1500", "-timeout=1", "-rss_limit_mb=512"]
    options = [f"-max_total_time={round(60 * minutes)}", *limits, "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}-", str(corpus)], read)
    atheris.Fuzz()


def entry_of(bits: int) -> tuple[bytes, dict[str, Any]]:
    """The entry of a tensor of so many bits with a scale for each group, and what its manifest says of it."""
    from multipress.packing.packet import encode
    from multipress.packing.stream import varint
    from multipress.packing.weights import write_weights

    tensors = (tensor_of(np.random.default_rng(seed)) for seed in range(40))
    tensor = next(one for one in tensors if one.bits == bits and one.has_groups)
    scale, codes = encode(tensor.scale), encode(tensor.values)
    return varint(len(scale)) + scale + codes, write_weights({"a": tensor}, {})[1]


def plant(corpus: Path) -> None:
    """What libFuzzer begins with: of each reader something that it reads; the first byte says which."""
    from multipress.packing.container import write_container
    from multipress.packing.packet import encode
    from multipress.packing.small import encode_gaps, encode_kinds
    from multipress.packing.tokenizer import pack_tokenizer

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny import word_piece

    corpus.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(200):
        (corpus / f"packet-{index}").write_bytes(b"\0" + encode(array_of(random)))
    small = random.laplace(0, 0.6, size=100).round().astype(np.int8)
    before, gaps = encode_gaps(small)
    for layout, body in ((3, encode_kinds(small)), (4, [(before, 0), *gaps])):
        streams = b"".join(data for data, _ in body)
        (corpus / f"layout-{layout}").write_bytes(b"\0" + bytes([1, layout, 0, 1, len(small)]) + streams)
    container = write_container({"a": ("F16", (2, 2), bytes(8)), "b": ("U8", (3,), bytes(3))}, {"key": "value"})
    (corpus / "container").write_bytes(b"\1" + container)
    (corpus / "tokenizer").write_bytes(b"\2" + pack_tokenizer(word_piece([f"w{index}" for index in range(40)])))
    (corpus / "entry").write_bytes(b"\3" + entry_of(4)[0])
    manifest = json.loads((Path(__file__).parents[1] / "golden" / "format-7" / "manifest.json").read_bytes())
    kept = dict(list(manifest["tensors"].items())[:1])  # short enough to be changed everywhere
    (corpus / "manifest").write_bytes(b"\4" + json.dumps(manifest | {"tensors": kept}, separators=(",", ":")).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("trips")
    command.add_argument("--count", type=int, default=1_000_000)
    command.add_argument("--seed", type=int, default=0)
    command = commands.add_parser("flips")
    command.add_argument("--of", required=True)
    command = commands.add_parser("fuzz")
    command.add_argument("--minutes", type=float, default=30)
    command.add_argument("--corpus", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "trips":
        sys.exit(int(trips(arguments.count, arguments.seed) > 0))
    if arguments.command == "flips":
        sys.exit(int(flips(arguments.of) > 0))
    fuzz(arguments.minutes, arguments.corpus)


if __name__ == "__main__":
    main()
