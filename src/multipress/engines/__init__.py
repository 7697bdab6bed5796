"""Where runs execute: `local`, persistent workers of one thread on this computer; `ray`, a cluster."""

from multipress.engines.open import open_engine

__all__ = ["open_engine"]
