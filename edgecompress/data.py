"""Dataset, Split and Training: what a model is calibrated, judged and trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgecompress import npz
from edgecompress.digest import digest
from edgecompress.errors import ConfigError
from edgecompress.vocabulary import Metric

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

CALIBRATION_LIMIT = 200

NUMERIC = "fiub"
"""Kinds of dtype that are plain real numbers."""

ALIASES = {"x_test": "x", "y_test": "y"}
"""What the files that Keras downloads call arrays."""
PAIRS = {
    "y": "x",
    "y_calibration": "x_calibration",
    "y_train": "x_train",
    "y_validation": "x_validation",
}
NEEDS: dict[str, tuple[str, ...]] = {
    "x": (),
    "x_calibration": (),
    "x_train": ("x",),
    "x_validation": ("x_train",),
    "y": ("x",),
    "y_calibration": ("x_calibration", "y"),
    "y_train": ("x_train", "y"),
    "y_validation": ("x_validation", "y_train"),
}
"""The arrays of a user's .npz, and which others each of them needs beside it."""
APART = (("x", "x_train"), ("x", "x_validation"), ("x_train", "x_validation"))
"""Arrays that must not be the same rows."""

TEST_EVERY, VALIDATION_EVERY = 5, 10
"""Of rows that nobody divided: every how many-th is for the test, and for the validation."""


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

    def rows(self, picked: Index) -> Split:
        """The rows with the numbers `picked`."""
        y = None if self.y is None else self.y[picked]
        return Split(self.name, self.x[picked], y, self.source)


Batch = tuple[Float, Array | None]
"""Rows x (N, *input_shape) and their targets, as in `Split`."""
Augment = Callable[[Float, Array | None, np.random.Generator], Float]
"""Rows and their targets -> the rows changed at random; a new array of the same shape."""


class Batches(Protocol):
    """Rows to train on, a pass at a time."""

    def __len__(self) -> int:
        """Rows of one pass."""

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """One pass over the rows in batches of `size` (the last may be smaller), in an order drawn
        with `rng`."""

    def key(self) -> str:
        """What these rows are told from others by: a checkpoint is of these alone."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to train on that are in memory: `x` (N, *input_shape) of any numeric type, `y` as in
    `Split`."""

    x: Array
    y: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """As `Batches.epoch`."""
        order = rng.permutation(len(self.x))
        for start in range(0, len(order), size):
            picked = order[start : start + size]
            y = None if self.y is None else self.y[picked]
            yield self.x[picked].astype(np.float32, copy=False), y

    def key(self) -> str:
        """As `Batches.key`: all that the arrays hold."""
        return digest(self.x) if self.y is None else digest(self.x, self.y)


@dataclass(frozen=True, eq=False)
class Training:
    """Rows to train on, and others that say when to stop; neither shares a row with a test split.

    `augment` changes each batch anew before the model sees it.
    """

    rows: Batches
    validation: Split
    augment: Augment | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A calibration pool and the splits a model is judged on; the two never share a row.

    `test` is what the budget looks at, and has no rows where nothing can be judged; `extra` is
    reported beside it. `pool_y` are the pool's targets, as in `Split`, where they are known.
    `training` reads the rows to train on when a stage asks for them; None where there are none.
    """

    name: str
    metric: Metric
    pool: Float
    test: Split
    extra: tuple[Split, ...] = ()
    labels: tuple[str, ...] = ()
    pool_y: Array | None = None
    training: Callable[[], Training] | None = None

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

    def to_train(self, stage: str) -> Training:
        """The rows to train on; ConfigError naming `stage` where there are none."""
        if self.training is None:
            raise ConfigError(
                f"{stage}: data {self.name} has no rows to train on; give x_train and y_train in an"
                " .npz, a folder of class folders, or Dataset(training=...)"
            )
        return self.training()

    def _drawn(self, n: int, seed: int) -> Index:
        if n <= 0:
            raise ConfigError(f"calibration: {n} samples; use at least 1")
        if n >= len(self.pool):
            return np.arange(len(self.pool))
        return np.sort(np.random.default_rng(seed).permutation(len(self.pool))[:n])


def load_npz(
    path: Path,
    *,
    seed: int = 0,
    training: bool = False,
    shape: tuple[int | None, ...] | None = None,
) -> Dataset:
    """The dataset in an `.npz` of the user's own.

    Arrays: `x` (or `x_test`) (N, *input_shape), any numeric type, in the float model's input
    domain, to judge on; `x_calibration` (M, *input_shape), `x_train` and `x_validation` where these
    rows are separate; and `y` (or `y_test`), `y_calibration` (which score taylor needs), `y_train`
    and `y_validation`, one target per row of each. What is not there is taken from other rows,
    drawn with `seed` and, of classes, from each alike:

    - `x_validation`: a tenth of `x_train`.
    - `x_calibration`: at most 200 rows to train on. Where there are none, a fifth of `x` (at most
      200), which is left out of the test. `x_calibration` alone, samples without targets, are all
      for calibration, and nothing is judged.
    - `x_train`, where `training` says that it is needed: of `x` a fifth is for the test, a tenth
      for the validation, and the rest to train on.

    Whole numbers (or booleans) of shape (N,) or (N, 1) are classes, and so is one-hot `y` of any
    type: (N, C), C > 1, nothing but 0 and 1 and one 1 in every row. Classes become int64 (N,) and
    the metric is top1. Any other `y` (without one, `x` itself) is the float32 target of the model's
    output, and the metric is mse. Where the model takes `shape` (..., 1) and all that rows lack is
    the one channel, as often of grey images, they get it.

    Raises ConfigError naming the file and the array; test rows that are the training rows are
    refused, and single test rows that stand in these or in the validation are counted in the test's
    source. Pickled arrays are refused.
    """
    arrays = _named(path, npz.read(path))
    parts = {name: _with_channel(rows, shape) for name, rows in _parts(path, arrays).items()}
    pool = parts.get("x_calibration")
    if "x" not in parts:
        assert pool is not None  # one of the two is there
        return Dataset(path.stem, "top1", pool.x, Split("test", pool.x[:0], None))
    test, source, held = parts["x"], path.name, f"{path.name}: x_validation"
    train, validation = parts.get("x_train"), parts.get("x_validation")
    if train is None and training:
        rows, stops, judged = divided(path, test, seed)
        train, validation, test = (_picked(test, part) for part in (rows, stops, judged))
        source = f"a fifth of {path.name}, drawn with seed {seed}"
        held = f"a tenth of {path.name}, drawn with seed {seed}"
    elif train is not None and validation is None:
        rows, stops = held_out(train, VALIDATION_EVERY, seed)
        train, validation = _picked(train, rows), _picked(train, stops)
        held = f"a tenth of the training rows of {path.name}, drawn with seed {seed}"
    if pool is None:
        drawn, left = calibrating(path, len(test), None if train is None else len(train), seed)
        pool, test = _picked(test if train is None else train, drawn), _picked(test, left)
    metric: Metric = "top1" if test.y is not None and test.y.dtype == np.int64 else "mse"
    learn = None
    if training and train is not None and validation is not None:
        others = {"training": _bytes(train.x), "validation": _bytes(validation.x)}
        source += shared(_bytes(test.x), **others)
        learn = Training(train, Split("validation", _float(validation.x), validation.y, held))
    return Dataset(
        path.stem,
        metric,
        _float(pool.x),
        Split("test", _float(test.x), test.y, source),
        pool_y=pool.y,
        training=None if learn is None else lambda: learn,
    )


def divided(name: object, rows: Rows, seed: int) -> tuple[Index, Index, Index]:
    """The numbers of rows to train on (the rest), to validate on (a tenth) and to test (a fifth).

    They depend on `seed`, on how many rows there are and on their classes, of which each has its
    share. Raises ConfigError naming `name` for fewer than 3 rows.
    """
    if len(rows) < 3:
        raise ConfigError(
            f"{name}: {len(rows)} rows; at least 3, to train, to validate and to test, or give"
            " x_train"
        )
    rest, test = held_out(rows, TEST_EVERY, seed)
    every = VALIDATION_EVERY * (TEST_EVERY - 1) // TEST_EVERY
    train, validation = held_out(_picked(rows, rest), every, seed)
    return rest[train], rest[validation], test


def held_out(rows: Rows, every: int, seed: int) -> tuple[Index, Index]:
    """The numbers of the other rows and of every `every`-th, drawn with `seed`, of classes from
    each alike; both sorted, with at least one each where there are two rows."""
    order = np.random.default_rng(seed).permutation(len(rows))
    if rows.y is not None and rows.y.dtype == np.int64:
        order = order[np.argsort(rows.y[order], kind="stable")]
    chosen = np.zeros(len(rows), bool)
    chosen[order[min(every // 2, len(order) - 1) :: every]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def calibrating(name: object, test: int, train: int | None, seed: int) -> tuple[Index, Index]:
    """The numbers of rows to calibrate with, drawn with `seed`, and of the `test` rows left.

    They are drawn from the `train` rows; where there are none, from those of the test, a fifth of
    them at most. Raises ConfigError naming `name` for a single row.
    """
    if train is not None:
        drawn = np.random.default_rng(seed).permutation(train)[:CALIBRATION_LIMIT]
        return np.sort(drawn), np.arange(test)
    if test < 2:
        raise ConfigError(f"{name}: {test} row to judge on; at least 2, one of them to calibrate")
    order = np.random.default_rng(seed).permutation(test)
    count = min(CALIBRATION_LIMIT, max(1, test // 5))
    return np.sort(order[:count]), np.sort(order[count:])


def shared(test: Iterable[bytes], **others: Iterable[bytes]) -> str:
    """What a test's source says of rows (their bytes, or a digest of them) that `others`, by what
    they are for, hold as well; nothing where none does."""
    rows, found = [hash(row) for row in test], ""
    for name, other in others.items():
        known = set(map(hash, other))
        count = sum(row in known for row in rows)
        found += f"; {count} of its rows are among the {name} rows too" if count else ""
    return found


def check_shape(data: Dataset, shape: tuple[int, ...], *, model: str) -> None:
    """ConfigError unless every row of `data` has the model's input `shape` (batch left out)."""
    for name, x in [("calibration", data.pool), *((s.name, s.x) for s in (data.test, *data.extra))]:
        if x.shape[1:] != shape:
            raise ConfigError(
                f"data {data.name}, {name}: rows are {x.shape[1:]}"
                f" but {model} takes {shape}; reshape the array"
            )


def _named(path: Path, found: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of a file by the names of NEEDS, each with those that it needs."""
    if not found.keys() & {"x", "x_test", "x_calibration"}:
        names = ", ".join(sorted(found)) or "none"
        raise ConfigError(
            f"{path}: no array named x (found: {names}); save np.savez(f, x=x, y=y), or"
            " x_calibration=x where no targets are known"
        )
    arrays: dict[str, Array] = {}
    for name in sorted(found):
        known = ALIASES.get(name, name)
        if known not in NEEDS:
            raise ConfigError(
                f"{path}: unknown array {name}; allowed: {', '.join((*NEEDS, *ALIASES))}"
            )
        if known in arrays:
            raise ConfigError(f"{path}: {known} and {name} are the same; save one of them")
        arrays[known] = found[name]
    for name in arrays:
        needed = list(NEEDS[name])
        if name in ("x_train", "x_validation") and "y" in arrays:
            needed.append(name.replace("x", "y", 1))
        for other in needed:
            if other not in arrays:
                raise ConfigError(f"{path}: {name} without {other}; save both, or neither")
    return arrays


def _parts(path: Path, arrays: Mapping[str, Array]) -> dict[str, Rows]:
    """Inputs with their targets, by the name of the inputs, all of one type and shape."""
    inputs = {name: _inputs(path, name, arrays[name]) for name in PAIRS.values() if name in arrays}
    targets = {
        name: targets_of(path, name, arrays[name], of=of, rows=len(inputs[of]))
        for name, of in PAIRS.items()
        if name in arrays
    }
    for group in (inputs, targets):
        _check_alike(path, group, kinds=group is targets)
    for one, other in APART:
        if one in inputs and other in inputs and np.array_equal(inputs[one], inputs[other]):
            raise ConfigError(
                f"{path}: {one} and {other} are the same rows; leave {other} out, and some rows of"
                f" {one} are held out for it"
            )
    return {of: Rows(inputs[of], targets.get(name)) for name, of in PAIRS.items() if of in inputs}


def _with_channel(rows: Rows, shape: tuple[int | None, ...] | None) -> Rows:
    """Rows of `shape` where the one channel, the last axis, is all that they lack."""
    found = rows.x.shape[1:]
    if shape is None or len(found) + 1 != len(shape) or shape[-1] != 1:
        return rows
    alike = all(want in (None, got) for want, got in zip(shape, found, strict=False))
    return Rows(rows.x[..., np.newaxis], rows.y) if alike else rows


def _picked(rows: Rows, picked: Index) -> Rows:
    return Rows(rows.x[picked], None if rows.y is None else rows.y[picked])


def _float(x: Array) -> Float:
    return x.astype(np.float32, copy=False)


def _bytes(x: Array) -> Iterator[bytes]:
    return (_float(row).tobytes() for row in x)


def _inputs(path: Path, name: str, array: Array) -> Array:
    """The inputs in array `name`, float32 and finite, or whole numbers as they are."""
    if array.dtype.kind not in NUMERIC or array.ndim < 2 or not array.size:
        raise ConfigError(
            f"{path}: {name} is {array.dtype} {array.shape};"
            " numbers of shape (samples, *input_shape) are needed"
        )
    return _finite(path, name, array) if array.dtype.kind == "f" else array


def targets_of(path: Path, name: str, y: Array, *, of: str, rows: int) -> Array:
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


def _check_alike(path: Path, group: Mapping[str, Array], *, kinds: bool) -> None:
    """ConfigError unless the rows of all arrays have one shape and, of targets (`kinds`), one
    type."""
    names = list(group)
    for name, twin in zip(names, names[1:], strict=False):
        one, other = group[name], group[twin]
        if kinds and one.dtype != other.dtype:
            a, b = ("classes" if y.dtype == np.int64 else "float targets" for y in (one, other))
            raise ConfigError(f"{path}: {name} holds {a} but {twin} {b}; save both alike")
        if one.shape[1:] != other.shape[1:]:
            raise ConfigError(
                f"{path}: {twin} rows are {other.shape[1:]} but {name} rows are {one.shape[1:]}"
            )
