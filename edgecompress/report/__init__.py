"""Report: what a run measured, as strict JSON and as Markdown."""

from edgecompress.report.boards import BoardRow
from edgecompress.report.memory_map import MapBlock, MapStep, MemoryMap
from edgecompress.report.operators import OperatorRow
from edgecompress.report.report import (
    AccuracyRow,
    Change,
    Difference,
    Proof,
    Report,
    Size,
    Verdict,
)

__all__ = [
    "AccuracyRow",
    "BoardRow",
    "Change",
    "Difference",
    "MapBlock",
    "MapStep",
    "MemoryMap",
    "OperatorRow",
    "Proof",
    "Report",
    "Size",
    "Verdict",
]
