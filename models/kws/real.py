"""Real speech: Speech Commands clips, where EC_DATA_DIR has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecompress import zoo
from edgecompress.errors import ConfigError

from .clips import Clips

CLIPS, ACCURACY_SET = "kws/sc_train60_mfcc.npz", "kws/kws01.npz"

_SPLIT_SEED = 2026
_VALIDATION_SHARE = 0.15


def need_clips() -> Path:
    """The file of real training clips, or ConfigError that says where it must be."""
    file = zoo.data_file(CLIPS)
    if file is None:
        raise ConfigError(
            f"kws: training needs real speech: set EC_DATA_DIR to a folder with {CLIPS}"
            " (x float32 (N, 49, 10, 1) MFCC, y class 0..11, speaker; see models/kws/README.md)"
        )
    return file


def split_by_speaker(file: Path) -> tuple[Clips, Clips]:
    """Training and validation clips of `file`; no speaker is in both.

    Clips of silence have no speaker: each goes to one side on its own.
    """
    with np.load(file, allow_pickle=False) as data:
        clips = Clips(data["x"], data["y"].astype(np.int64), data["speaker"])
    return apart(clips, share=_VALIDATION_SHARE)


def apart(clips: Clips, *, share: float) -> tuple[Clips, Clips]:
    """`clips` without, and of, a `share` of the speakers; clips without one go on their own."""
    rng = np.random.default_rng(_SPLIT_SEED)
    nobody = clips.speaker == ""
    names = np.unique(clips.speaker[~nobody])
    held = rng.permutation(names)[: round(share * len(names))]
    chosen = np.isin(clips.speaker, held) | (nobody & (rng.random(len(clips)) < share))
    return clips.rows(~chosen), clips.rows(chosen)


def unseen_speakers(file: Path) -> Clips:
    """The rows of kws01 whose speakers have no clip in the training file; names as `speaker`."""
    with np.load(file, allow_pickle=False) as data:
        x = (data["x"].astype(np.float32) - data["zero_point"]) * data["scale"]
        clips = Clips(x.astype(np.float32), data["y"].astype(np.int64), data["names"])
        return clips.rows(data["unseen_speaker"])
