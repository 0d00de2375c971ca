"""The trained networks that data-free compression is judged on, with their rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecompress.artifact import Artifact
from edgecompress.channels import analyse
from edgecompress.evaluation import predict

if TYPE_CHECKING:
    import keras

INNER = {
    "resnet20_cifar10": {f"layer{s}_{b}_conv1" for s in (1, 2, 3) for b in range(3)},
    "ic_resnet": {"conv2d_1", "conv2d_3", "conv2d_6"},
    "kws_dscnn": {"conv2d_2", "conv2d_3", "conv2d_4"},
}
"""The groups that are pruned: the first convolution of each block, the DS-CNN's last three."""
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reference:
    """A trained model; test rows `x` (N, *input_shape) with classes `y` (N,), and `others`, rows
    of the training side in an order sorted by class or speaker."""

    name: str
    model: keras.Model
    x: Rows
    y: npt.NDArray[np.int64]
    others: Rows

    @property
    def artifact(self) -> Artifact:
        """The model as the stages take it."""
        return Artifact(self.name, self.model)

    @property
    def protect(self) -> list[str]:
        """All groups that can be pruned but INNER."""
        groups = [group.name for group in analyse(self.model).groups if not group.protected]
        return [name for name in groups if name not in INNER[self.name]]

    def few(self, count: int, *, seed: int) -> Rows:
        """Rows of the training side, drawn by `seed`, without labels."""
        picked = np.random.default_rng(seed).permutation(len(self.others))[:count]
        return np.asarray(self.others[picked])

    def top1(self, model: keras.Model) -> float:
        """Percent of the test rows that the model is right on."""
        return self.share(predict(model, self.x))

    def share(self, outputs: npt.NDArray[Any]) -> float:
        """Percent of the test rows that are right, of a model's outputs (N, classes) on them."""
        return float(100 * np.mean(outputs.argmax(-1) == self.y))


def load(name: str, folder: Path) -> Reference:
    """The model `name` of INNER, from the evaluation data in `folder`."""
    import keras

    model = keras.models.load_model(folder / "models" / f"{name}.keras", compile=False)
    if name == "kws_dscnn":
        test = _arrays(folder / "kws" / "kws01.npz")
        x = (test["x"].astype(np.float32) - test["zero_point"]) * test["scale"]
        others = _arrays(folder / "kws" / "sc_train60_mfcc.npz")["x"]
    else:
        test = _arrays(folder / "cifar10" / "cifar10_test_2000.npz")
        x, others = test["x"], _arrays(folder / "cifar10" / "cifar10_calib_train500.npz")["x"]
    return Reference(
        name, model, x.astype(np.float32), test["y"].reshape(-1), others.astype(np.float32)
    )


def _arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)
