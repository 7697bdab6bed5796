"""Where the time of a training step goes: forward, backward, optimizer, by length, attention, dropout and route.

    python benchmarks/step.py minilm-l6

One thread, batch of 32, no padding. Prints milliseconds (median) and GFLOP/s of the linear layers against the rate of
a large matrix product, which is the limit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from itertools import pairwise

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.nn import functional

from multipress.models import load_pretrained, read_first_token_only
from multipress.models.encoder import encoder_linears
from multipress.precision import autocast, product_rate, route, use_route

BATCH = 32
VARIANTS = {
    "as transformers has it (sdpa, dropout 0.1)": {"attention": "sdpa", "dropout": 0.1, "shortcut": False},
    "plain attention, dropout 0.1": {"attention": "eager", "dropout": 0.1, "shortcut": False},
    "plain attention, no dropout": {"attention": "eager", "dropout": 0.0, "shortcut": False},
    "and the last block for the first token only": {"attention": "eager", "dropout": 0.0, "shortcut": True},
}


def time_steps(model: torch.nn.Module, length: int, repeats: int, route_name: str) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids, labels = torch.randint(1000, 20000, (BATCH, length)), torch.randint(0, 2, (BATCH,))
    parts = []
    for _ in range(repeats + 2):
        marks = [time.perf_counter()]
        with autocast(route_name):
            logits = model(input_ids=ids).logits.float()
        loss = functional.cross_entropy(logits, labels)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad()
        marks.append(time.perf_counter())
        parts.append([1e3 * (after - before) for before, after in pairwise(marks)])
    return [statistics.median(column) for column in zip(*parts[2:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lengths", nargs="+", type=int, default=[14, 32, 128])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    use_route(route())
    print(f"route {route()}; a matrix product runs at {product_rate(1024, 1024, 1024) / 1e9:.0f} GFLOP/s")
    print("| variant | tokens | forward ms | backward ms | optimizer ms | examples/s |")
    print("|---|---|---|---|---|---|")
    for length in arguments.lengths:
        for name, variant in VARIANTS.items():
            model = load_pretrained(
                arguments.model, label_names=("a", "b"), seed=0, dropout=variant["dropout"]
            ).model.train()
            model.set_attn_implementation(variant["attention"])
            if variant["shortcut"]:
                read_first_token_only(model)
            parts = time_steps(model, length, arguments.repeats, route())
            rate = BATCH / sum(parts) * 1e3
            print(f"| {name} | {length} | {parts[0]:.0f} | {parts[1]:.0f} | {parts[2]:.0f} | {rate:.1f} |", flush=True)
    weights = sum(module.weight.numel() for module in encoder_linears(model).values())
    print(f"linear layers of the encoder: {6e-9 * weights:.3f} GFLOP a token (forward and backward)")


if __name__ == "__main__":
    main()
