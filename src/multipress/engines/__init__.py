"""Where runs execute: `local`, persistent workers of one thread on this computer; `ray`, a cluster."""
