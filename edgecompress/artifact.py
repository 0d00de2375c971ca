"""Artifact and Step: what every compression stage takes and gives back."""

from __future__ import annotations

import datetime
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecompress.errors import StageOrderError
from edgecompress.files import write_bytes, write_text, write_whole

if TYPE_CHECKING:
    from keras import Model

KERAS_FILE = "float.keras"
FLATBUFFER = "model.tflite"
STEPS = "steps.json"
"""The files of a run directory."""

_METADATA = "metadata.json"
_DATE = datetime.datetime(1980, 1, 1)

Json = Any
"""A value that `json.dumps` writes: None, bool, int, float, str, list or dict of these."""


@dataclass(frozen=True)
class Step:
    """One stage that was applied: its name, its parameters and what it changed.

    `params` and `effect` hold JSON values only, so that a run can be stored and repeated.
    """

    stage: str
    params: Mapping[str, Json] = field(default_factory=dict)
    effect: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A model on its way through the pipeline.

    `keras` is the training-time graph (None for a model that came as `.tflite`), `tflite` the
    flatbuffer once the model is quantised, `steps` what was done so far. Stages never edit an
    artifact: they return a new one.
    """

    name: str
    keras: Model | None = None
    tflite: bytes | None = None
    steps: tuple[Step, ...] = ()

    def after(self, step: Step, **changes: Any) -> Artifact:
        """This artifact with `changes` applied and `step` appended."""
        return replace(self, steps=(*self.steps, step), **changes)

    def need_keras(self, stage: str) -> Model:
        """The Keras model, or StageOrderError when `stage` has none to work on any more."""
        if self.keras is None:
            raise StageOrderError(
                f"{stage}: {self.name} is a .tflite without a Keras model; start from a .keras,"
                " .h5 or SavedModel"
            )
        if self.tflite is not None:
            raise StageOrderError(
                f"{stage}: {self.name} is already quantised; call {stage} before quantize"
            )
        return self.keras

    def need_tflite(self, stage: str) -> bytes:
        """The flatbuffer, or StageOrderError when the model is not quantised yet."""
        if self.tflite is None:
            raise StageOrderError(f"{stage}: {self.name} has no .tflite yet; call quantize first")
        return self.tflite

    @property
    def sha256(self) -> str | None:
        """SHA-256 (hex) of the flatbuffer, None before quantisation."""
        return None if self.tflite is None else hashlib.sha256(self.tflite).hexdigest()

    def save(self, folder: Path) -> None:
        """Write what there is to the run directory, which `edgecompress.load` reads back:
        float.keras, model.tflite, and steps.json with the SHA-256 of these two.

        A model file of an earlier run that this artifact has no counterpart for is removed.
        """
        model = self.keras
        if model is not None:

            def write(temporary: Path) -> None:
                model.save(temporary)
                _undated(temporary)

            write_whole(folder / KERAS_FILE, write)
        if self.tflite is not None:
            write_bytes(folder / FLATBUFFER, self.tflite)
        written = {KERAS_FILE: model is not None, FLATBUFFER: self.tflite is not None}
        digests = {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name, present in written.items()
            if present
        }
        steps = [asdict(step) for step in self.steps]
        record = {"name": self.name, "sha256": digests, "steps": steps}
        write_text(folder / STEPS, json.dumps(record, indent=1) + "\n")
        for name in written.keys() - digests.keys():
            (folder / name).unlink(missing_ok=True)


def _undated(archive: Path) -> None:
    """Give a .keras file the first date that a zip can have, so that a model is always the same
    bytes."""
    with zipfile.ZipFile(archive) as found:
        members = {name: found.read(name) for name in found.namelist()}
    about = {**json.loads(members[_METADATA]), "date_saved": _DATE.strftime("%Y-%m-%d@%H:%M:%S")}
    members[_METADATA] = json.dumps(about).encode()
    with zipfile.ZipFile(archive, "w") as fresh:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, _DATE.timetuple()[:6])
            member.external_attr = 0o644 << 16
            fresh.writestr(member, content)
