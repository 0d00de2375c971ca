"""Data of the user's own: an .npz, a folder of class folders, a function in a Python file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecompress import usercode
from edgecompress.data import Array, Augment, Dataset, Float, Training, load_npz
from edgecompress.errors import ConfigError
from edgecompress.sources.factory import from_function
from edgecompress.sources.folders import from_folder

__all__ = ["read_data"]


def read_data(
    where: str,
    *,
    shape: tuple[int, ...],
    seed: int = 0,
    training: bool = False,
    features: str | None = None,
    augment: str | None = None,
) -> Dataset:
    """The dataset that `where` names, for a model that takes rows of `shape`.

    An .npz (`data.load_npz`), a folder (`folders.from_folder`) or "file.py:function"
    (`factory.from_function`). `training` says whether rows to train on are needed. `features` is
    the "file.py:function" that makes rows of a folder's sounds or images; `augment` the one that
    changes a batch to train on at random: function(x, y, rng) -> x of the same shape. Raises
    ConfigError naming the file, and what each of the readers raises.
    """
    change = None if augment is None else _augment(augment)
    if features is not None and not Path(where).is_dir():
        raise ConfigError(f"--features {features}: it is for --data with a folder, not {where}")
    if usercode.split(where) is not None:
        data = from_function(where, shape=shape, seed=seed, training=training)
    elif Path(where).is_dir():
        data = from_folder(
            Path(where), shape=shape, seed=seed, training=training, features=features
        )
    else:
        data = load_npz(Path(where), seed=seed, training=training, shape=shape)
    given = data.training
    if change is None or given is None:
        return data

    def augmented() -> Training:
        return replace(given(), augment=change)

    return replace(data, training=augmented)


def _augment(where: str) -> Augment:
    """The user's function, whose rows are checked."""
    changed = usercode.function(where, of="--augment")

    def augment(x: Float, y: Array | None, rng: np.random.Generator) -> Float:
        found = np.asarray(changed(x.copy(), y, rng))
        if found.shape != x.shape or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
            raise ConfigError(
                f"--augment {where}: it made {found.dtype} {found.shape} of rows {x.shape}; give"
                " finite numbers of the same shape"
            )
        return found.astype(np.float32, copy=False)

    return augment
