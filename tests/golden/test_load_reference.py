"""The reference models: every format of one model computes the same."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress.loading import load

SAVED_MODEL = "original/kws_ref_model_savedmodel.tar.gz"
KWS = ("kws_dscnn.keras", "kws_dscnn.h5", "kws_dscnn_tfkeras.h5", SAVED_MODEL)
IC = ("ic_resnet.keras", "ic_resnet.h5", "original/pretrainedResnet.h5")
TFLITE = (
    "kws_ref_model.tflite",
    "kws_ref_model_float32.tflite",
    "pretrainedResnet.tflite",
    "pretrainedResnet_quant.tflite",
)


def model(data_dir: Path, file: str, scratch: Path) -> Any:
    path = data_dir / "models" / file
    if file == SAVED_MODEL:
        with tarfile.open(path) as archive:
            archive.extractall(scratch, filter="data")
        path = scratch / "kws_ref_model"
    return load(path).keras


@pytest.mark.parametrize(
    ("files", "shape", "scale", "shift", "parameters"),
    [(KWS, (49, 10, 1), 10, 0, 24_908), (IC, (32, 32, 3), 60, 128, 78_666)],
    ids=["kws", "ic"],
)
def test_formats_agree(
    data_dir: Path,
    tmp_path: Path,
    files: tuple[str, ...],
    shape: tuple[int, ...],
    scale: float,
    shift: float,
    parameters: int,
) -> None:
    x = np.random.default_rng(0).normal(shift, scale, (8, *shape)).astype("f4")
    models = {file: model(data_dir, file, tmp_path) for file in files}
    outputs = {file: np.asarray(each(x, training=False)) for file, each in models.items()}
    first = outputs[files[0]]
    assert first.std() > 0.1
    for file in files:
        assert models[file].count_params() == parameters, file
        np.testing.assert_allclose(outputs[file], first, rtol=0, atol=1e-5, err_msg=file)


def test_resnet20_classifies(data_dir: Path) -> None:
    """90.85 % on `cifar10_test_2000`, by the data's own README; 200 images tell it from chance."""
    loaded = load(data_dir / "models" / "resnet20_cifar10.keras").keras
    assert loaded is not None
    with np.load(data_dir / "cifar10" / "cifar10_test_2000.npz", allow_pickle=False) as file:
        x, y = file["x"][::10].astype("f4"), file["y"][::10]
    correct = np.asarray(loaded(x, training=False)).argmax(1) == y
    assert 0.85 < correct.mean() < 0.96


@pytest.mark.parametrize("file", TFLITE)
def test_tflite_comes_as_it_is(data_dir: Path, file: str) -> None:
    path = data_dir / "models" / "original" / file
    artifact = load(path)
    assert artifact.keras is None
    assert artifact.tflite == path.read_bytes()
    assert artifact.name == path.stem
