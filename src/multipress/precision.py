"""How this computer multiplies matrices while training: the precision of the forward pass and the route."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from multipress.reproducibility import computer, cpu_flags

__all__ = ["BlockRates", "autocast", "block_rates", "device", "product_rate", "route", "use_route"]


def device() -> torch.device:
    """A GPU where there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def route() -> str:
    """Name of the way matrices are multiplied here; a part of a run's identity.

    `cuda-bf16`; `bf16` where the CPU multiplies bfloat16 in hardware; `fp32-onednn` on an AMD CPU with AVX-512 and
    without it, where torch's default takes a slow path for float32; otherwise `fp32`.
    """
    if torch.cuda.is_available():
        return "cuda-bf16"
    flags = cpu_flags()
    if flags & {"avx512_bf16", "amx_bf16"}:
        return "bf16"
    if "avx512f" in flags and "AMD" in str(computer()["cpu"]):
        return "fp32-onednn"
    return "fp32"


def use_route(name: str) -> None:
    """Set torch to this route for the whole process."""
    # With this setting oneDNN takes float32 products over from MKL. It rounds to bfloat16 only where the CPU has
    # AMX, so the setting is for CPUs without it (torch's documentation).
    precision = "bf16" if name == "fp32-onednn" else "none"
    torch.backends.mkldnn.matmul.fp32_precision = precision  # type: ignore[attr-defined]


def autocast(name: str) -> AbstractContextManager[object]:
    """Context of the forward pass: bfloat16 products where the route says so. Parameters stay float32."""
    if name == "cuda-bf16":
        return torch.autocast("cuda", torch.bfloat16)
    if name == "bf16":
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


@dataclass(frozen=True)
class BlockRates:
    """How fast one thread of this computer works on a block of an encoder.

    A matrix product's rate says little about it: where bfloat16 products are fast, the rest is what takes time.

    Args:
        train: Floating-point operations a second of its linear layers, forward and backward, by our route.
        teach: The same of the forward pass alone.
        read: The same in float32, as a stored model computes.
        update: Seconds of the optimizer for each weight and step.
    """

    train: float
    teach: float
    read: float
    update: float


def block_rates(rows: int = 32, tokens: int = 14, width: int = 384) -> BlockRates:
    """Measure a block of BERT, with heads of 32, on a batch of so many rows of so many tokens; the best of 10 each."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    use_route(route())
    config = BertConfig(
        hidden_size=width,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    block = BertLayer(config).to(device())
    inputs = torch.ones(rows, tokens, width, device=device(), requires_grad=True)
    optimizer = torch.optim.AdamW(block.parameters(), fused=True)

    def forward(name: str) -> torch.Tensor:
        with autocast(name):
            found: torch.Tensor = block(inputs)
        return found.float().mean()

    @torch.no_grad()
    def read(name: str) -> None:
        forward(name).item()

    def train() -> None:
        forward(route()).backward()  # type: ignore[no-untyped-call]
        inputs.grad[0, 0, 0].item()  # type: ignore[index]

    operations = 2 * 12 * width**2 * rows * tokens
    num_weights = sum(parameter.numel() for parameter in block.parameters())
    try:
        found = BlockRates(
            3 * operations / _fastest(train),
            operations / _fastest(lambda: read(route())),
            operations / _fastest(lambda: read("fp32")),
            _fastest(optimizer.step) / num_weights,
        )
    finally:
        torch.set_num_threads(threads)
    return found


def _fastest(work: Callable[[], object]) -> float:
    """Seconds, the best of 10."""
    times = []
    for _ in range(10):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def product_rate(rows: int, inner: int, columns: int) -> float:
    """Floating-point operations a second of one thread on a product (rows, inner) x (inner, columns), by our route.

    The best of 25; it is the limit of a training's rate.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    use_route(route())
    dtype = torch.bfloat16 if route().endswith("bf16") else torch.float32
    left = torch.ones(rows, inner, dtype=dtype, device=device())
    right = torch.ones(inner, columns, dtype=dtype, device=device())
    try:
        best = min(_seconds_of(left, right) for _ in range(25))
    finally:
        torch.set_num_threads(threads)
    return 2 * rows * inner * columns / best


def _seconds_of(left: torch.Tensor, right: torch.Tensor) -> float:
    started = time.perf_counter()
    (left @ right)[0, 0].item()  # waits for a GPU
    return time.perf_counter() - started
