"""Arrays to few bytes and back, bit for bit."""

from __future__ import annotations

from multipress.packing.packet import VERSION, decode, encode, entropy_bound_bytes, peek

__all__ = ["VERSION", "decode", "encode", "entropy_bound_bytes", "peek"]
