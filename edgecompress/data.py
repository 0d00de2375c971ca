"""Dataset and Split: what a model is calibrated and judged on."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ConfigError
from edgecompress.vocabulary import Metric

Float = npt.NDArray[np.float32]

CALIBRATION_LIMIT = 200


@dataclass(frozen=True, eq=False)
class Split:
    """Samples to judge a model on.

    `x` is float32 (N, *input_shape) in the float model's own input domain; `y` is an integer
    class per row for top1, 0 or 1 for auc, the float target (N, *output_shape) for mse, or None
    for the mse of an autoencoder (the target is the input).
    """

    name: str
    x: Float
    y: npt.NDArray[Any] | None
    source: str = ""

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, picked: npt.NDArray[np.int64]) -> Split:
        """The rows with the numbers `picked`."""
        y = None if self.y is None else self.y[picked]
        return Split(self.name, self.x[picked], y, self.source)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A calibration pool and the splits a model is judged on; the two never share a row.

    `test` is what the budget looks at; `extra` is reported beside it. `pool_y` are the pool's
    targets, as in `Split`, where they are known.
    """

    name: str
    metric: Metric
    pool: Float
    test: Split
    extra: tuple[Split, ...] = ()
    labels: tuple[str, ...] = ()
    pool_y: npt.NDArray[Any] | None = None

    def calibration(self, n: int = CALIBRATION_LIMIT, *, seed: int = 0) -> Float:
        """`n` rows drawn without replacement (all of them when the pool is smaller), float32."""
        return self.pool[self._drawn(n, seed)]

    def labelled(
        self, n: int = CALIBRATION_LIMIT, *, seed: int = 0
    ) -> tuple[Float, npt.NDArray[Any] | None]:
        """The rows of `calibration` with their targets (None: the rows are their own targets).

        Raises ConfigError where the metric needs targets and the pool has none.
        """
        if self.pool_y is None and self.metric != "mse":
            raise ConfigError(
                f"data {self.name}: the calibration rows have no y; add their targets"
            )
        drawn = self._drawn(n, seed)
        return self.pool[drawn], None if self.pool_y is None else self.pool_y[drawn]

    def _drawn(self, n: int, seed: int) -> npt.NDArray[np.int64]:
        if n <= 0:
            raise ConfigError(f"calibration: {n} samples; use at least 1")
        if n >= len(self.pool):
            return np.arange(len(self.pool))
        return np.sort(np.random.default_rng(seed).permutation(len(self.pool))[:n])


def load_npz(path: Path, *, seed: int = 0) -> Dataset:
    """The dataset in an `.npz` of the user's own.

    Arrays: `x` (N, *input_shape), any numeric type, in the float model's input domain; `y`, see
    `Split`; `x_calibration` (M, *input_shape) where the calibration rows are separate. Without
    `x_calibration`, a fifth of the rows (at most 200) is drawn with `seed`, kept for calibration
    and left out of the test. The metric is top1 for a list of integers `y`, else mse.

    Raises ConfigError naming the file and the array. Pickled arrays are refused.
    """
    arrays = _arrays(path)
    if "x" not in arrays:
        found = ", ".join(sorted(arrays)) or "none"
        raise ConfigError(f"{path}: no array named x (found: {found}); save np.savez(f, x=x, y=y)")
    unknown = sorted(set(arrays) - {"x", "y", "x_calibration"})
    if unknown:
        raise ConfigError(f"{path}: unknown array {unknown[0]}; allowed: x, x_calibration, y")
    x, y = _float32(path, "x", arrays["x"]), arrays.get("y")
    if y is not None and len(y) != len(x):
        raise ConfigError(f"{path}: x has {len(x)} rows but y has {len(y)}")
    pool_y = None
    if "x_calibration" in arrays:
        pool = _float32(path, "x_calibration", arrays["x_calibration"])
        if pool.shape[1:] != x.shape[1:]:
            raise ConfigError(
                f"{path}: x_calibration rows are {pool.shape[1:]} but x rows are {x.shape[1:]}"
            )
    else:
        if len(x) < 2:
            raise ConfigError(f"{path}: {len(x)} row in x; at least 2, one of them to calibrate")
        order = np.random.default_rng(seed).permutation(len(x))
        held = min(CALIBRATION_LIMIT, max(1, len(x) // 5))
        rows = np.sort(order[held:])
        kept = np.sort(order[:held])
        pool, x = x[kept], x[rows]
        if y is not None:
            pool_y, y = y[kept], y[rows]
    classes = y is not None and y.dtype.kind in "iu" and y.ndim == 1
    metric: Metric = "top1" if classes else "mse"
    test = Split("test", x, y, source=path.name)
    return Dataset(path.stem, metric, pool, test, pool_y=pool_y)


def check_shape(data: Dataset, shape: tuple[int, ...], *, model: str) -> None:
    """ConfigError unless every row of `data` has the model's input `shape` (batch left out)."""
    for name, x in [("calibration", data.pool), *((s.name, s.x) for s in (data.test, *data.extra))]:
        if x.shape[1:] != shape:
            raise ConfigError(
                f"data {data.name}, {name}: rows are {x.shape[1:]}"
                f" but {model} takes {shape}; reshape the array"
            )


def _arrays(path: Path) -> Mapping[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such data file; give an .npz with x and y")
    try:
        with path.open("rb") as handle:
            file = np.load(handle, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return {name: file[name] for name in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path}: not a readable .npz ({error}); save np.savez(f, x=x, y=y)"
        ) from error


def _float32(path: Path, name: str, array: npt.NDArray[Any]) -> Float:
    if array.dtype.kind not in "fiub" or array.ndim < 2 or not len(array):
        raise ConfigError(
            f"{path}: {name} is {array.dtype} {array.shape};"
            " numbers of shape (samples, *input_shape) are needed"
        )
    x = array.astype(np.float32)
    if not np.isfinite(x).all():
        raise ConfigError(f"{path}: {name} holds NaN or infinite values; clean the data")
    return x
