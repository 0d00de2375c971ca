"""The MLPerf Tiny image-classification reference model (ResNet-8) and CIFAR-10 test images.

Both come from EC_DATA_DIR, or from the cache that `edgecompress pull mlperf_ic` fills. Source:
mlcommons/tiny, Apache-2.0; CIFAR-10, A. Krizhevsky, 2009, the binary version.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecompress import npz, zoo
from edgecompress.data import Array, Dataset, Float, Rows, Split, Training

NAME = "mlperf_ic"
LABELS = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CALIBRATION_ROWS = 500
SHIFT = 4

_MODEL, _TEST_ROWS, _CALIBRATION_ROWS = GIVEN = (
    "models/ic_resnet.keras",
    "cifar10/cifar10_test_2000.npz",
    "cifar10/cifar10_calib_train500.npz",
)
"""What EC_DATA_DIR may hold."""
_TRAINING_ROWS = "cifar10/cifar10_train_2000.npz"
"""And this, for what trains."""

_ARCHIVE = "cifar-10-binary.tar.gz"
_ROW_BYTES = 1 + 3 * 32 * 32
_TRAINING, _TEST = "cifar-10-batches-bin/data_batch_1.bin", "cifar-10-batches-bin/test_batch.bin"

REMOTE = (
    zoo.Remote(
        "https://raw.githubusercontent.com/mlcommons/tiny/1afd2c9820f795965a6134facd0b4dfae41ef23f"
        "/benchmark/training/image_classification/trained_models/pretrainedResnet.h5",
        "5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f",
        "pretrainedResnet.h5",
    ),
    zoo.Remote(
        f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        _ARCHIVE,
    ),
)


def model(folder: Path) -> Path:
    """The float reference model."""
    return zoo.data_file(_MODEL) or zoo.pulled(NAME, "pretrainedResnet.h5", instead=GIVEN)


def dataset(folder: Path) -> Dataset:
    """Test images, float 0..255 as the model takes them, calibrated on training images.

    From EC_DATA_DIR 2,000 of the test images, and 2,000 to train on; from the pulled archive all
    10,000, and 9,500 to train on. The calibration images also say when training stops.
    """
    test, calibration = zoo.data_file(_TEST_ROWS), zoo.data_file(_CALIBRATION_ROWS)
    if test is not None and calibration is not None:
        (x, y), (pool, pool_labels) = _arrays(test), _arrays(calibration)
        heard, name = zoo.data_file(_TRAINING_ROWS), "cifar10_test_2000"
    else:
        heard, name = zoo.pulled(NAME, _ARCHIVE, instead=GIVEN), "cifar10_test"
        (pool, pool_labels), (x, y) = _unpack(heard)
        pool, pool_labels = pool[:CALIBRATION_ROWS], pool_labels[:CALIBRATION_ROWS]
    stop = Split("stop", pool, pool_labels, "CIFAR-10 training images held out")
    return Dataset(
        name=NAME,
        metric="top1",
        pool=pool,
        test=Split(name, x, y, "CIFAR-10 test images"),
        labels=LABELS,
        pool_y=pool_labels,
        training=None if heard is None else lambda: Training(_heard(heard), stop, _changed),
    )


def _heard(file: Path) -> Rows:
    """The images to train on: all of an .npz, those of the archive that do not calibrate."""
    if file.suffix == ".npz":
        return Rows(*_arrays(file))
    (x, y), _ = _unpack(file)
    return Rows(x[CALIBRATION_ROWS:], y[CALIBRATION_ROWS:])


def _changed(x: Float, y: Array | None, rng: np.random.Generator) -> Float:
    """Half of the images mirrored, each moved by up to SHIFT pixels over zeros."""
    side = x.shape[1]
    wide = np.pad(x, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    rows, columns = (rng.integers(0, 2 * SHIFT, len(x), endpoint=True) for _ in range(2))
    moved = np.stack(
        [
            image[row : row + side, column : column + side]
            for image, row, column in zip(wide, rows, columns, strict=True)
        ]
    )
    mirrored = rng.random(len(x)) < 0.5
    moved[mirrored] = moved[mirrored, :, ::-1]
    return np.asarray(moved)


def _arrays(file: Path) -> tuple[Float, npt.NDArray[np.int64]]:
    data = npz.read(file)
    return data["x"].astype(np.float32), data["y"].astype(np.int64)


def _unpack(
    archive: Path,
) -> tuple[tuple[Float, npt.NDArray[np.int64]], tuple[Float, npt.NDArray[np.int64]]]:
    """Training and test images of the binary archive, each row label, red, green, blue plane."""
    members = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name in (_TRAINING, _TEST) else None
            if content is not None:
                members[member.name] = content.read()
    return _rows(members[_TRAINING]), _rows(members[_TEST])


def _rows(batch: bytes) -> tuple[Float, npt.NDArray[np.int64]]:
    rows = np.frombuffer(batch, np.uint8).reshape(-1, _ROW_BYTES)
    x = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x, np.float32), rows[:, 0].astype(np.int64)
