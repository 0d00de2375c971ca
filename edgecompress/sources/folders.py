"""A folder of class folders, with images or sounds, as a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgecompress import usercode
from edgecompress.data import (
    VALIDATION_EVERY,
    Batch,
    Batches,
    Dataset,
    Float,
    Index,
    Rows,
    Split,
    Training,
    calibrating,
    divided,
    held_out,
    shared,
)
from edgecompress.digest import digest
from edgecompress.errors import ConfigError
from edgecompress.sources.decode import IMAGES, SOUNDS, Reader, images, waveforms

SPLITS = ("train", "validation", "test")
IGNORED = ("Thumbs.db", "desktop.ini")
"""What file managers leave; so are files whose name starts with a dot."""
LABELS = "labels.txt"
"""The classes in order, one a line; without it they are sorted by name."""
MEMORY = 1 << 30
"""Bytes of rows to train on that are kept; more than that is read from the files in every epoch."""


Parts = dict[str, dict[str, list[Path]]]
"""The files of each class of each split; of the split "" where nothing is divided."""


@dataclass(frozen=True, eq=False)
class Files:
    """Rows that are read from their files, in every epoch again."""

    files: Sequence[Path]
    y: Index
    read: Reader

    def __len__(self) -> int:
        return len(self.files)

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """As `Batches.epoch`."""
        order = rng.permutation(len(self.files))
        for start in range(0, len(order), size):
            batch = self.rows(order[start : start + size])
            yield batch.x(), batch.y

    def key(self) -> str:
        """As `Batches.key`: which files there are, how large they are and when each was changed."""
        stats = [(str(file), file.stat()) for file in self.files]
        return digest(repr([(name, s.st_size, s.st_mtime_ns) for name, s in stats]), self.y)

    def rows(self, picked: Index) -> Files:
        """The files with the numbers `picked`."""
        return Files([self.files[i] for i in picked], self.y[picked], self.read)

    def x(self) -> Float:
        """All rows (N, *input_shape), in memory."""
        return np.stack([self.read(file) for file in self.files])

    def split(self, name: str, source: str) -> Split:
        """All rows, to judge on."""
        return Split(name, self.x(), self.y, source)

    def to_train(self) -> Batches:
        """The rows as they are trained on: in memory, unless they take more than MEMORY."""
        row = self.read(self.files[0])
        return Rows(self.x(), self.y) if len(self) * row.nbytes <= MEMORY else self


def from_folder(
    folder: Path,
    *,
    shape: tuple[int | None, ...],
    seed: int = 0,
    training: bool = False,
    features: str | None = None,
) -> Dataset:
    """The dataset in `folder/<class>/*` or `folder/{train,validation,test}/<class>/*`, for a model
    that takes rows of `shape`.

    Images (BMP, JPEG, PNG) become float32 from 0 to 255 in the height, width and channels of
    `shape`, resized where they have another size, with antialiasing and without regard to their
    proportions. Sounds (WAV, PCM of 8 to 32 bits) become float32 from -1 to 1, the mean of their
    channels, cut or filled up with zeros to `shape` (L,) or (L, 1); all must have one sample rate.
    `features` ("file.py:function") makes the rows of `shape` where a model takes others:
    function(pixels) of an image (as it would be without, or as large as it is), or
    function(waveform, rate) of a whole sound.

    What is not divided is divided as the rows of an .npz are (`data.load_npz`), and calibration
    rows are drawn as there. Raises ConfigError naming the file: damaged, of another kind or rate,
    outside the folder (behind a symbolic link), a class without files, classes that are not those
    of labels.txt or of the other splits.
    """
    found = _found(folder)
    labels = _labels(folder, found)
    files = [file for classes in found.values() for each in classes.values() for file in each]
    sounds = {file.suffix.lower() in SOUNDS for file in files}
    if len(sounds) > 1:
        raise ConfigError(f"{folder}: images and sounds; keep one kind in a folder")
    make = None if features is None else usercode.function(features, of="--features")
    read = waveforms(files[0], shape, make) if sounds == {True} else images(shape, make)
    parts = {
        name: Files(
            [file for label in labels for file in classes[label]],
            np.repeat(np.arange(len(labels)), [len(classes[label]) for label in labels]),
            _checked(read, shape, features),
        )
        for name, classes in found.items()
    }
    return _dataset(folder, parts, labels, seed, training)


def _dataset(
    folder: Path, parts: dict[str, Files], labels: Sequence[str], seed: int, training: bool
) -> Dataset:
    train, stops, test = (parts.get(name) for name in SPLITS)
    source, held = folder.name, f"{folder.name}/validation"
    if test is None:
        test = parts[""]
        if training:
            rows, late, judged = divided(folder, Rows(test.y, test.y), seed)
            train, stops, test = test.rows(rows), test.rows(late), test.rows(judged)
            source = f"a fifth of {folder.name}, drawn with seed {seed}"
            held = f"a tenth of {folder.name}, drawn with seed {seed}"
    elif train is not None and stops is None:
        rows, late = held_out(Rows(train.y, train.y), VALIDATION_EVERY, seed)
        train, stops = train.rows(rows), train.rows(late)
        held = f"a tenth of {folder.name}/train, drawn with seed {seed}"
    drawn, left = calibrating(folder, len(test), None if train is None else len(train), seed)
    pool, test = (test if train is None else train).rows(drawn), test.rows(left)
    learn: Callable[[], Training] | None = None
    if training and train is not None and stops is not None:
        contents = {
            "training": map(_content, train.files),
            "validation": map(_content, stops.files),
        }
        source += shared(map(_content, test.files), **contents)
        learn = partial(_training, train, stops, held)
    return Dataset(
        folder.name,
        "top1",
        pool.x(),
        test.split("test", source),
        labels=tuple(labels),
        pool_y=pool.y,
        training=learn,
    )


def _training(train: Files, stops: Files, source: str) -> Training:
    return Training(train.to_train(), stops.split("validation", source))


def _content(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def _found(folder: Path) -> Parts:
    """The files of each class of each split, sorted; ConfigError for what is none."""
    homes = _folders(folder, beside=LABELS)
    names = [home.name for home in homes]
    if not set(names) & set(SPLITS):
        return {"": _classes(homes, folder)}
    for home in homes:
        if home.name not in SPLITS:
            raise ConfigError(f"{home}: beside {', '.join(SPLITS)}; put it into one of them")
    if "test" not in names or ("validation" in names and "train" not in names):
        raise ConfigError(
            f"{folder}: {' and '.join(names)} alone; test is needed, and train for validation"
        )
    return {home.name: _classes(_folders(home), folder) for home in homes}


def _folders(folder: Path, *, beside: str | None = None) -> list[Path]:
    """The folders in `folder`, with no file among them but `beside`."""
    paths = [path for path in _inside(folder) if path.name != beside]
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"{path}: a file beside the class folders; put it into one, or away")
    if not paths:
        raise ConfigError(f"{folder}: no class folders; put the files of each class in one of them")
    return paths


def _classes(homes: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """The files of each class folder, by its name; none may lie outside `root`."""
    classes = {}
    for home in homes:
        files = _inside(home)
        if not files:
            raise ConfigError(f"{home}: a class without files; add some, or remove the folder")
        for file in files:
            if not file.resolve().is_relative_to(root.resolve()):
                raise ConfigError(f"{file}: a link that leaves {root}; copy the file there")
            if not file.is_file() or file.suffix.lower() not in (*IMAGES, *SOUNDS):
                raise ConfigError(
                    f"{file}: neither an image nor a sound ({' '.join((*IMAGES, *SOUNDS))});"
                    " take it away"
                )
        classes[home.name] = files
    return classes


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without what file managers leave."""
    return sorted(
        path for path in folder.iterdir() if path.name[0] != "." and path.name not in IGNORED
    )


def _labels(folder: Path, found: Parts) -> list[str]:
    """The names of the classes, in order."""
    first, *others = found
    labels = sorted(found[first])
    for name in others:
        apart = sorted(found[name].keys() ^ set(labels))
        if apart:
            raise ConfigError(
                f"{folder}: {', '.join(apart)} in one of {first} and {name} alone; every class"
                " needs files in each"
            )
    file = folder / LABELS
    if not file.is_file():
        return labels
    try:
        given = file.read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise ConfigError(f"{file}: no UTF-8 text ({error}); give a class folder a line") from error
    listed = [line.strip() for line in given if line.strip()]
    if sorted(listed) != labels:
        raise ConfigError(
            f"{file}: {', '.join(listed)}, but the class folders are {', '.join(labels)}; name each"
            " of them once"
        )
    return listed


def _checked(read: Reader, shape: tuple[int | None, ...], features: str | None) -> Reader:
    """`read`, with what it gives compared to `shape`."""

    def checked(file: Path) -> Float:
        row = np.asarray(read(file))
        fits = row.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, row.shape, strict=True)
        )
        if not fits or row.dtype.kind not in "fiu" or not np.isfinite(row).all():
            raise ConfigError(
                f"{file}: --features {features} made {row.dtype} {row.shape}, but the model takes"
                f" finite numbers {shape}"
            )
        return row.astype(np.float32, copy=False)

    return read if features is None else checked
