"""How this computer multiplies matrices while training: the precision of the forward pass and the route."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch

from multipress.reproducibility import computer, cpu_flags

__all__ = ["autocast", "device", "product_rate", "route", "use_route"]


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
