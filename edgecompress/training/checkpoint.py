"""Where a training stands, in a file that is whole at any moment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress import npz
from edgecompress.artifact import Json
from edgecompress.digest import digest
from edgecompress.errors import ConfigError
from edgecompress.files import write_whole

Array = npt.NDArray[Any]

_NOTES = "notes"


@dataclass(frozen=True)
class State:
    """Arrays by name, and what else there is to remember."""

    arrays: Mapping[str, Array]
    notes: Mapping[str, Json]


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training. `key` stands for all that the training depends on: a file that was
    written under another key counts as none. `finish` says that a training which stands in it is
    not to go on."""

    path: Path
    key: str = ""
    finish: bool = False

    def of(self, *parts: str | Array) -> Checkpoint:
        """This checkpoint of a training that depends on `parts` too."""
        return replace(self, key=digest(self.key, *parts))

    def read(self) -> State | None:
        """What was written last under this key; what a killed run left half-written is removed.

        Raises ConfigError for a damaged file.
        """
        for left in self.path.parent.glob(f".{self.path.stem}-*{self.path.suffix}"):
            left.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            arrays = npz.read(self.path)
            notes = json.loads(arrays.pop(_NOTES).tobytes())
            key = notes.pop("key")
        except (ConfigError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self.path}: a damaged checkpoint; delete it to train from the start"
            ) from error
        return State(arrays, notes) if key == self.key else None

    def write(self, state: State) -> None:
        """Put `state` in the place of what the file holds, on the disk itself."""
        notes = np.frombuffer(json.dumps({**state.notes, "key": self.key}).encode(), np.uint8)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **{**state.arrays, _NOTES: notes})
                file.flush()
                os.fsync(file.fileno())

        write_whole(self.path, write)


@dataclass(frozen=True)
class Checkpoints:
    """A folder with a checkpoint of every training of a run; `finish` is that of each."""

    folder: Path
    finish: bool = False

    def under(self, label: str) -> Checkpoints:
        """Those of a part of the run, apart from the others'; themselves for ""."""
        return replace(self, folder=self.folder / label)

    def at(self, label: str, key: str = "") -> Checkpoint:
        """The checkpoint of the training `label`, made with what `key` says (see `digest`)."""
        name = re.sub(r"[^0-9A-Za-z._-]", "_", label)
        return Checkpoint(self.folder / f"{name}.npz", key, self.finish)
