"""How this computer multiplies matrices while training: the precision of the forward pass and the route."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from multipress.reproducibility import computer, cpu_flags

__all__ = ["autocast", "device", "route", "use_route"]


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
