"""Dataset and Split: what a model is calibrated and judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress import npz
from edgecompress.errors import ConfigError
from edgecompress.vocabulary import Metric

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]

CALIBRATION_LIMIT = 200

NUMERIC = "fiub"
"""Kinds of dtype that are plain real numbers."""

PAIRS = {"y": "x", "y_calibration": "x_calibration"}
NEEDS: dict[str, tuple[str, ...]] = {
    "x": (),
    "x_calibration": (),
    "y": ("x",),
    "y_calibration": ("x_calibration", "y"),
}
"""The arrays of a user's .npz, and which others each of them needs beside it."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples to judge a model on.

    `x` is float32 (N, *input_shape) in the float model's own input domain; `y` is an integer
    class per row for top1, 0 or 1 for auc, the float target (N, *output_shape) for mse, or None
    for the mse of an autoencoder (the target is the input).
    """

    name: str
    x: Float
    y: Array | None
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

    `test` is what the budget looks at, and has no rows where nothing can be judged; `extra` is
    reported beside it. `pool_y` are the pool's targets, as in `Split`, where they are known.
    """

    name: str
    metric: Metric
    pool: Float
    test: Split
    extra: tuple[Split, ...] = ()
    labels: tuple[str, ...] = ()
    pool_y: Array | None = None

    def calibration(self, n: int = CALIBRATION_LIMIT, *, seed: int = 0) -> Float:
        """`n` rows drawn without replacement (all of them when the pool is smaller), float32."""
        return self.pool[self._drawn(n, seed)]

    def labelled(self, n: int = CALIBRATION_LIMIT, *, seed: int = 0) -> tuple[Float, Array | None]:
        """The rows of `calibration` with their targets (None: the rows are their own targets).

        Raises ConfigError where the test split has targets, or the metric needs them, and the pool
        has none.
        """
        if self.pool_y is None and (self.metric != "mse" or self.test.y is not None):
            raise ConfigError(
                f"data {self.name}: the calibration rows have no y; add their targets"
                " (y_calibration in an .npz, pool_y of a Dataset)"
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

    Arrays: `x` (N, *input_shape), any numeric type, in the float model's input domain; `y`, one
    target per row of `x`; `x_calibration` (M, *input_shape) where the calibration rows are
    separate, and `y_calibration` (M, ...) with their targets, which score taylor needs. Without
    `x_calibration`, a fifth of the rows (at most 200) is drawn with `seed`, kept for calibration
    with their `y` and left out of the test. `x_calibration` alone, samples without targets, are
    all for calibration, and nothing is judged.

    Whole numbers (or booleans) of shape (N,) or (N, 1) are classes, and so is one-hot `y` of any
    type: (N, C), C > 1, nothing but 0 and 1 and one 1 in every row. Classes become int64 (N,) and
    the metric is top1. Any other `y` (without one, `x` itself) is the float32 target of the model's
    output, and the metric is mse.

    Raises ConfigError naming the file and the array. Pickled arrays are refused.
    """
    arrays = npz.read(path)
    if "x" not in arrays and "x_calibration" not in arrays:
        found = ", ".join(sorted(arrays)) or "none"
        raise ConfigError(
            f"{path}: no array named x (found: {found}); save np.savez(f, x=x, y=y), or"
            " x_calibration=x where no targets are known"
        )
    for name in sorted(arrays):
        if name not in NEEDS:
            raise ConfigError(f"{path}: unknown array {name}; allowed: {', '.join(NEEDS)}")
        for other in NEEDS[name]:
            if other not in arrays:
                raise ConfigError(f"{path}: {name} without {other}; save both, or neither")
    inputs: dict[str, Array] = {
        name: _rows(path, name, arrays[name]) for name in PAIRS.values() if name in arrays
    }
    targets = {
        name: _targets(path, name, arrays[name], of=of, rows=len(inputs[of]))
        for name, of in PAIRS.items()
        if name in arrays
    }
    for pair in (inputs, targets):
        _check_alike(path, pair)
    pool = inputs.get("x_calibration")
    if "x" not in inputs and pool is not None:
        return Dataset(path.stem, "top1", pool, Split("test", pool[:0], None))
    x = inputs["x"]
    y, pool_y = targets.get("y"), targets.get("y_calibration")
    metric: Metric = "top1" if y is not None and y.dtype == np.int64 else "mse"
    if pool is None:
        if len(x) < 2:
            raise ConfigError(f"{path}: {len(x)} row in x; at least 2, one of them to calibrate")
        order = np.random.default_rng(seed).permutation(len(x))
        held = min(CALIBRATION_LIMIT, max(1, len(x) // 5))
        rows, kept = np.sort(order[held:]), np.sort(order[:held])
        pool, x = x[kept], x[rows]
        if y is not None:
            pool_y, y = y[kept], y[rows]
    return Dataset(path.stem, metric, pool, Split("test", x, y, source=path.name), pool_y=pool_y)


def check_shape(data: Dataset, shape: tuple[int, ...], *, model: str) -> None:
    """ConfigError unless every row of `data` has the model's input `shape` (batch left out)."""
    for name, x in [("calibration", data.pool), *((s.name, s.x) for s in (data.test, *data.extra))]:
        if x.shape[1:] != shape:
            raise ConfigError(
                f"data {data.name}, {name}: rows are {x.shape[1:]}"
                f" but {model} takes {shape}; reshape the array"
            )


def _rows(path: Path, name: str, array: Array) -> Float:
    """The inputs in array `name`, float32 and finite."""
    if array.dtype.kind not in NUMERIC or array.ndim < 2 or not array.size:
        raise ConfigError(
            f"{path}: {name} is {array.dtype} {array.shape};"
            " numbers of shape (samples, *input_shape) are needed"
        )
    return _finite(path, name, array)


def _targets(path: Path, name: str, y: Array, *, of: str, rows: int) -> Array:
    """The targets in array `name`: int64 (N,) where they are classes, else float32 and finite."""
    if y.dtype.kind not in NUMERIC or not y.ndim or (len(y) and not y.size):
        raise ConfigError(
            f"{path}: {name} is {y.dtype} {y.shape}; give a whole number per row of {of}, its"
            " class, or float targets"
        )
    if len(y) != rows:
        raise ConfigError(f"{path}: {of} has {rows} rows but {name} has {len(y)}")
    if y.dtype.kind != "f" and y.size == len(y):
        return y.reshape(-1).astype(np.int64)
    one: Array = y == 1
    if y.ndim == 2 and y.shape[1] > 1 and (one | (y == 0)).all() and (one.sum(axis=1) == 1).all():
        classes: npt.NDArray[np.int64] = one.argmax(axis=1)
        return classes
    return _finite(path, name, y)


def _finite(path: Path, name: str, array: Array) -> Float:
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise ConfigError(f"{path}: {name} holds NaN or infinite values; clean the data")
    return values


def _check_alike(path: Path, pair: Mapping[str, Array]) -> None:
    """ConfigError unless the rows of an array and of its calibration twin have one type and
    shape."""
    if len(pair) < 2:
        return
    (name, test), (twin, pool) = pair.items()
    if test.dtype != pool.dtype:
        kinds = ["classes" if a.dtype == np.int64 else "float targets" for a in (test, pool)]
        raise ConfigError(f"{path}: {name} holds {kinds[0]} but {twin} {kinds[1]}; save both alike")
    if test.shape[1:] != pool.shape[1:]:
        raise ConfigError(
            f"{path}: {twin} rows are {pool.shape[1:]} but {name} rows are {test.shape[1:]}"
        )
