"""How small a stream of weights is and how fast it comes back: ours, zstd and constriction's ANS, against the entropy.

Symbols are drawn from a bell shape with long tails (Laplace), as entropy-coded quantization leaves them, and from whole
numbers of a normal distribution, as a fixed number of bits does. The limit in bytes is the order-0 entropy; MB/s is
that of decoded int8, in turns, the best of all turns, one thread. A packet is what is stored.

    python benchmarks/codecs.py -o results/codecs.json
"""

import argparse
import json
import time
from pathlib import Path

import constriction
import numpy as np
import zstandard

from multipress.packing import decode, encode, entropy_bound_bytes
from multipress.packing.stream import ANS, RAW, Reader, decode_stream, encode_stream
from multipress.reproducibility import computer, library_versions

COUNT = 590_000  # a feed-forward matrix of minilm-l6
TURNS = 5


def drawn():
    """Name and int8 weights of each kind."""
    random = np.random.default_rng(0)
    for width in (0.15, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.6, 2.0, 4.0, 10.0):
        yield f"Laplace {width}", np.rint(random.laplace(0, width, COUNT)).clip(-127, 127).astype(np.int8)
    for bits in (2, 3, 4, 6, 8):
        top = 2 ** (bits - 1) - 1
        rows = random.standard_normal((1536, COUNT // 1536))
        scaled = rows / np.abs(rows).max(axis=1, keepdims=True) * top
        yield f"normal, {bits} bits", np.rint(scaled).astype(np.int8).ravel()


def ways(weights):
    """Of each way: bytes, and a function that decodes them."""
    symbols = (weights.astype(np.int16) + 128).astype(np.uint8)
    stream, packet = encode_stream(symbols), encode(weights)
    best = zstandard.ZstdCompressor(level=19).compress(symbols.tobytes())
    counts = np.bincount(symbols, minlength=256).astype(np.float64)
    model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols.astype(np.int32), model)
    words = coder.get_compressed()

    def by_constriction():
        return constriction.stream.stack.AnsCoder(words).decode(model, len(symbols)).astype(np.uint8)

    def by_zstd():
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(best), dtype=np.uint8)

    codec = {RAW: "raw", ANS: "ANS"}.get(stream[0], "zstd")
    return {
        f"stream ({codec})": (len(stream), lambda: decode_stream(Reader(stream), len(symbols)), symbols),
        "packet": (len(packet), lambda: decode(packet), weights),
        "zstd -19": (len(best), by_zstd, symbols),
        "constriction": (words.nbytes, by_constriction, symbols),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path)
    asked = parser.parse_args()
    rows = []
    print("| weights | bits | stored by | bytes over the entropy | MB/s |\n|---|---|---|---|---|")
    for name, weights in drawn():
        bound, found = entropy_bound_bytes(weights), ways(weights)
        seconds = {way: [] for way in found}
        for _ in range(TURNS):
            for way, (_, read, wanted) in found.items():
                start = time.perf_counter()
                read_back = read()
                seconds[way].append(time.perf_counter() - start)
                assert np.array_equal(read_back, wanted)
        for way, (size, _, _) in found.items():
            row = {"weights": name, "bits": 8 * bound / len(weights), "stored_by": way}
            row |= {"over_entropy": size / bound, "mb_per_s": len(weights) / min(seconds[way]) / 1e6}
            rows.append(row)
            print(f"| {name} | {row['bits']:.2f} | {way} | {row['over_entropy']:.4f} | {row['mb_per_s']:.0f} |")
    if asked.out:
        versions = library_versions("multipress", "numpy", "zstandard", "constriction")
        told = {"count": COUNT, "computer": computer(), "versions": versions, "rows": rows}
        asked.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
