"""The twelve classes, and labelled clips of one second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .mfcc import Float

KEYWORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
LABELS = (*KEYWORDS, "silence", "unknown")
SILENCE, UNKNOWN = LABELS.index("silence"), LABELS.index("unknown")


@dataclass(frozen=True, eq=False)
class Clips:
    """MFCC `x` float32 (N, 49, 10, 1), class `y` int64 (N,) and who speaks, `speaker` (N,)."""

    x: Float
    y: npt.NDArray[np.int64]
    speaker: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Clips:
        """The chosen rows."""
        return Clips(self.x[chosen], self.y[chosen], self.speaker[chosen])


def joined(parts: Sequence[Clips]) -> Clips:
    """The clips of all `parts`, one after the other."""
    x, y, speaker = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "speaker")
    )
    return Clips(x, y, speaker)
