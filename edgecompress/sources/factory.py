"""A function in a Python file of the user's own that gives tf.data datasets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress import usercode
from edgecompress.data import (
    CALIBRATION_LIMIT,
    Array,
    Batch,
    Dataset,
    Float,
    Split,
    Training,
    calibrating,
    targets_of,
)
from edgecompress.digest import digest
from edgecompress.errors import ConfigError
from edgecompress.vocabulary import Metric

PARTS = ("train", "validation", "test", "calibration")
BUFFER = 2048
"""Rows to train on that are mixed with each other."""
_CHUNK = 256
"""Rows that are read at once."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows to train on that come anew from a tf.data dataset in every epoch.

    `rows` gives (x, y), or x, a row at a time, `count` of them; `place` names it in errors.
    """

    rows: Any
    count: int
    labelled: bool
    place: _Place

    def __len__(self) -> int:
        return self.count

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """As `Batches.epoch`; rows are mixed within BUFFER of them."""
        mixed = self.rows.shuffle(min(self.count, BUFFER), int(rng.integers(2**31)))
        for x, y in _read(mixed.batch(size), self.place):
            yield self.place.row(x), None if y is None else self._targets(y, len(x))

    def key(self) -> str:
        """As `Batches.key`: the text of the file, and how many rows it gives. The rows themselves
        may be others each time, as of a dataset that augments them."""
        return digest(self.place.file.read_text("utf-8", "replace"), f"{self.count}")

    def _targets(self, y: Array, rows: int) -> Array:
        if not self.labelled:
            return y.astype(np.float32)
        return targets_of(self.place.file, f"{self.place.name}: y", y, of="x", rows=rows)


@dataclass(frozen=True)
class _Place:
    """Where a dataset comes from: the file, and which of PARTS it is."""

    file: Path
    name: str

    def wrong(self, what: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.name} {what}")

    def row(self, x: Array) -> Float:
        if x.dtype.kind not in "fiub" or not np.isfinite(x).all():
            raise self.wrong(f"holds {x.dtype} rows that are not all finite numbers; clean them")
        return x.astype(np.float32, copy=False)


def from_function(
    where: str, *, shape: tuple[int | None, ...], seed: int = 0, training: bool = False
) -> Dataset:
    """The dataset of "file.py:function", for a model that takes rows of `shape`.

    The function gives a dict of tf.data datasets of (x, y), or of x where the rows are their own
    targets, a row or a batch at a time: "test" to judge on, "train" and "validation" where
    `training` says that rows to train on are needed, and "calibration", which is otherwise the
    first 200 rows of "train", or drawn from "test" as in `data.load_npz`. Only "train" is not held
    in memory. Targets are classes or values as there.

    Raises ConfigError naming the file and, for an error in it, the line.
    """
    file = Path(where.rpartition(":")[0])
    made = _made(where, usercode.function(where, of="--data")(), training)
    rows = {name: _rows(made[name], shape, _Place(file, name)) for name in PARTS if name in made}
    test = _held(rows["test"], _Place(file, "test"))
    if "calibration" in rows:
        pool = _held(rows["calibration"], _Place(file, "calibration"))
    elif "train" in rows:
        pool = _held(rows["train"].take(CALIBRATION_LIMIT), _Place(file, "train"))
    else:
        drawn, left = calibrating(file, len(test), None, seed)
        pool, test = test.rows(drawn), test.rows(left)
    metric: Metric = "top1" if test.y is not None and test.y.dtype == np.int64 else "mse"
    learn = partial(_training, file, rows, metric == "top1") if training else None
    return Dataset(
        file.stem,
        metric,
        pool.x,
        Split("test", test.x, test.y, where),
        pool_y=pool.y,
        training=learn,
    )


def _training(file: Path, rows: Mapping[str, Any], labelled: bool) -> Training:
    place, stops = _Place(file, "train"), _held(rows["validation"], _Place(file, "validation"))
    stream = Stream(rows["train"], _count(rows["train"], place), labelled, place)
    return Training(stream, Split("validation", stops.x, stops.y, f"{file.name}: validation"))


def _made(where: str, made: Any, training: bool) -> Mapping[str, Any]:
    """What the function gave, if it is a dict with datasets that will do."""
    import tensorflow as tf

    if not isinstance(made, dict):
        raise ConfigError(
            f"{where} gave {type(made).__name__}; give a dict of tf.data datasets: {_listed(PARTS)}"
        )
    for name, rows in made.items():
        if name not in PARTS:
            raise ConfigError(f"{where} gave {name!r}, which is unknown; use {_listed(PARTS)}")
        if not isinstance(rows, tf.data.Dataset):
            raise ConfigError(f"{where}: {name} is {type(rows).__name__}; give a tf.data.Dataset")
        if int(rows.cardinality()) == tf.data.INFINITE_CARDINALITY:
            raise ConfigError(f"{where}: {name} never ends; end it with .take(rows)")
    for name in ("train", "validation", "test") if training else ("test",):
        if name not in made:
            raise ConfigError(f"{where} gave no {name!r}; the recipe needs it")
    return made


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _rows(dataset: Any, shape: tuple[int | None, ...], place: _Place) -> Any:
    """The dataset a row at a time; ConfigError unless its rows are of `shape`."""
    spec = dataset.element_spec
    first, pair = (spec[0], len(spec) == 2) if isinstance(spec, tuple) else (spec, True)
    found = getattr(first, "shape", None)
    if not pair or found is None:
        raise place.wrong("has elements that are neither (x, y) nor x")
    if found.rank is None:
        raise place.wrong("has rows of unknown shape; set it with tf.ensure_shape")
    if found.rank == len(shape) + 1:
        dataset, found = dataset.unbatch(), found[1:]
    if not found.is_compatible_with(shape):
        raise place.wrong(f"has rows of shape {found}, but the model takes {shape}")
    return dataset


def _held(dataset: Any, place: _Place) -> Split:
    """All rows with their targets, in memory."""
    parts = list(_read(dataset.batch(_CHUNK), place))
    if not parts:
        raise place.wrong("is empty; give at least 1 row")
    x = np.concatenate([place.row(x) for x, _ in parts])
    targets = [y for _, y in parts if y is not None]
    if not targets:
        return Split(place.name, x, None)
    y = targets_of(place.file, f"{place.name}: y", np.concatenate(targets), of="x", rows=len(x))
    return Split(place.name, x, y)


def _count(dataset: Any, place: _Place) -> int:
    """How many rows there are; they are counted where the dataset does not know."""
    known = int(dataset.cardinality())
    count = known if known >= 0 else sum(len(x) for x, _ in _read(dataset.batch(_CHUNK), place))
    if not count:
        raise place.wrong("is empty; give at least 1 row")
    return count


def _read(dataset: Any, place: _Place) -> Iterator[tuple[Array, Array | None]]:
    """The elements as arrays; errors in the user's code, which TensorFlow wraps, as one line."""
    import tensorflow as tf

    try:
        for element in dataset.as_numpy_iterator():
            x, y = element if isinstance(element, tuple) else (element, None)
            yield x, y
    except tf.errors.OpError as error:
        text = str(error)
        lines = re.findall(rf'File "{re.escape(str(place.file.resolve()))}", line (\d+)', text)
        kinds = re.findall(r"^(?:.*\}\} )?(\w+(?:Error|Exception): .+)$", text, re.MULTILINE)
        reason = kinds[0] if kinds else text.splitlines()[0]
        line = f"{lines[-1]}:" if lines else ""
        raise ConfigError(f"{place.file}:{line} {place.name}: {reason}") from error
