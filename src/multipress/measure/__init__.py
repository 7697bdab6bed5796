"""Measure what ships: every number comes from the artifact's folder, never from a live model."""

from multipress.measure.memory import measure_memory
from multipress.measure.outcomes import read_error, read_outcome, read_recalls, write_outputs
from multipress.measure.quality import measure_parts, measure_quality
from multipress.measure.size import group_sizes, ideal_bytes, measure_size
from multipress.measure.speed import measure_speed, measure_writing_speed

__all__ = [
    "group_sizes",
    "ideal_bytes",
    "measure_memory",
    "measure_parts",
    "measure_quality",
    "measure_size",
    "measure_speed",
    "measure_writing_speed",
    "read_error",
    "read_outcome",
    "read_recalls",
    "write_outputs",
]
