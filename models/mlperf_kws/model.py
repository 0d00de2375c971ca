"""The MLPerf Tiny keyword-spotting reference model and its accuracy set, kws01.

Both come from EC_DATA_DIR, or from the cache that `edgecompress pull mlperf_kws` fills from the
public repositories. Source: mlcommons/tiny and eembc/energyrunner, Apache-2.0; the speech is Speech
Commands v0.02, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecompress import npz, zoo
from edgecompress.data import Dataset, Float, Split

NAME = "mlperf_kws"
LABELS = (
    *("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"),
    *("silence", "unknown"),
)
SCALE, ZERO_POINT = 0.58470291, 83
"""Input quantisation of kws01: float = (int8 - ZERO_POINT) * SCALE."""

_MODEL, _CLIPS, _TRAINING_CLIPS = GIVEN = (
    "models/kws_dscnn.keras",
    "kws/kws01.npz",
    "kws/sc_train60_mfcc.npz",
)
"""What EC_DATA_DIR may hold."""

_SHAPE = (49, 10, 1)
_MANIFEST = "kws01.sha256"
_MODEL_URL = (
    "https://raw.githubusercontent.com/mlcommons/tiny/4addd0fa08d216e20637637874e084895f289da4"
    "/benchmark/training/keyword_spotting/trained_models/kws_ref_model"
)
_SET_URL = (
    "https://raw.githubusercontent.com/eembc/energyrunner/5baff5b4ae8b0bd657844cc03ace877df82aba6e"
    "/datasets/kws01"
)
_SAVED_MODEL = (
    ("80665dd19eeb03d1152fdc098b5635261731b23478d09f6ff2166da799f98138", "saved_model.pb"),
    (
        "3f21dd9ea6736e20e70c5ed2f40ed9d8a7d12b98316ac0e4ab8f4eb7e303d738",
        "variables/variables.index",
    ),
    (
        "5ebfddd34e85a2d35e87e27a8a803353534019bb460907b16db5fa72d757e8c5",
        "variables/variables.data-00000-of-00001",
    ),
)
_SAME_CLIP = 2.0
"""Mean squared distance, in quantisation steps, under which two clips are the same recording."""


def _manifest() -> dict[str, str]:
    """SHA-256 by file name of the 1,000 clips of kws01; the digit before .bin is the class."""
    lines = (Path(__file__).parent / _MANIFEST).read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


REMOTE = (
    *(
        zoo.Remote(f"{_MODEL_URL}/{file}", digest, f"kws_ref_model/{file}")
        for digest, file in _SAVED_MODEL
    ),
    *(
        zoo.Remote(f"{_SET_URL}/{name}", digest, f"kws01/{name}")
        for name, digest in _manifest().items()
    ),
)


def model(folder: Path) -> Path:
    """The float reference model."""
    return zoo.data_file(_MODEL) or zoo.pulled(NAME, "kws_ref_model", instead=GIVEN)


def dataset(folder: Path) -> Dataset:
    """kws01, 1,000 clips; calibrated on other clips of Speech Commands, or on synthesised speech.

    The synthesised speech is the calibration pool of the model `kws`, taken where EC_DATA_DIR has
    no real clips.
    """
    file = zoo.data_file(_CLIPS)
    if file is not None:
        data = npz.read(file)
        rows, labels = data["x"], data["y"].astype(np.int64)
    else:
        names, clip_files = sorted(_manifest()), zoo.pulled(NAME, "kws01", instead=GIVEN)
        clips = [(clip_files / name).read_bytes() for name in names]
        rows = np.stack([np.frombuffer(clip, np.int8).reshape(_SHAPE) for clip in clips])
        labels = np.array([int(Path(name).stem.split("_")[-1]) for name in names])
    x = (rows.astype(np.float32) - ZERO_POINT) * np.float32(SCALE)
    pool, pool_labels = _pool(x)
    return Dataset(
        name=NAME,
        metric="top1",
        pool=pool,
        test=Split("kws01", x, labels, "MLPerf Tiny accuracy set, Speech Commands v0.02"),
        labels=LABELS,
        pool_y=pool_labels,
    )


def _pool(test: Float) -> tuple[Float, npt.NDArray[np.int64]]:
    real = zoo.data_file(_TRAINING_CLIPS)
    if real is None:
        data = npz.read(zoo.folder("kws") / "eval.npz")
        return data["pool_x"].astype(np.float32), data["pool_y"].astype(np.int64)
    data = npz.read(real)
    x, y = data["x"], data["y"].astype(np.int64)
    other = ~_recorded_in(x, test)
    return x[other], y[other]


def _recorded_in(x: Float, test: Float) -> npt.NDArray[np.bool_]:
    """Which clips of `x` are in `test` too: the two were cut from the same recordings."""
    a, b = (clips.reshape(len(clips), -1) / SCALE for clips in (x, test))
    distance = (a**2).sum(1)[:, None] - 2.0 * a @ b.T + (b**2).sum(1)
    return np.asarray(distance.min(1) / a.shape[1] < _SAME_CLIP)
