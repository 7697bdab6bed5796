"""Look inside a compressed model: what of its hidden states, attention and knowledge differs from another's.

Every number is read from artifacts on disk. `run.Dissection` does all; the other files are the measures:

- `reading`, `capture`: text to words and tokens; hidden states and attention maps, streamed to disk;
- `moments`, `similarity`, `complexity`, `attention`, `zeros`: what is computed from them and from the stored integers;
- `jackknife`: how far a number would move on other text;
- `probe_tasks`, `probes`: what a linear classifier reads off each frozen layer.
"""
