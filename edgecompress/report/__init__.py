"""Report: what a run measured, as strict JSON and as Markdown."""

from edgecompress.report.memory_map import MapBlock, MapStep, MemoryMap
from edgecompress.report.report import (
    AccuracyRow,
    Change,
    Difference,
    LayerRow,
    Proof,
    Report,
    Size,
    Verdict,
)

__all__ = [
    "AccuracyRow",
    "Change",
    "Difference",
    "LayerRow",
    "MapBlock",
    "MapStep",
    "MemoryMap",
    "Proof",
    "Report",
    "Size",
    "Verdict",
]
