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
from edgecompress.data import Dataset, Float, Split

NAME = "mlperf_ic"
LABELS = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CALIBRATION_ROWS = 500

_MODEL, _TEST_ROWS, _TRAINING_ROWS = GIVEN = (
    "models/ic_resnet.keras",
    "cifar10/cifar10_test_2000.npz",
    "cifar10/cifar10_calib_train500.npz",
)
"""What EC_DATA_DIR may hold."""

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

    2,000 of the test images from EC_DATA_DIR, all 10,000 from the pulled archive.
    """
    test = zoo.data_file(_TEST_ROWS)
    training = zoo.data_file(_TRAINING_ROWS)
    if test is not None and training is not None:
        (x, y), (pool, pool_labels) = _arrays(test), _arrays(training)
        name = "cifar10_test_2000"
    else:
        (pool, pool_labels), (x, y) = _unpack(zoo.pulled(NAME, _ARCHIVE, instead=GIVEN))
        pool, pool_labels = pool[:CALIBRATION_ROWS], pool_labels[:CALIBRATION_ROWS]
        name = "cifar10_test"
    return Dataset(
        name=NAME,
        metric="top1",
        pool=pool,
        test=Split(name, x, y, "CIFAR-10 test images"),
        labels=LABELS,
        pool_y=pool_labels,
    )


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
