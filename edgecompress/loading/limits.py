"""How much a model file may claim: far more than a microcontroller's model needs, and little
enough that a hostile file costs seconds and megabytes."""

from __future__ import annotations

MAX_BYTES = 1 << 30
"""No model file, unpacked, may declare more than this."""

MAX_RATIO = 200
SMALL_BYTES = 16 << 20
"""Below SMALL_BYTES content may be packed as tightly as it likes, above not over MAX_RATIO."""

MAX_TEXT_BYTES = 16 << 20
"""The configuration, the metadata and any other text: parsed, it takes twenty times the memory."""

MAX_NESTING = 100
"""Levels of objects and lists in a model's JSON; a model within a model adds about six."""

MAX_OBJECTS = 50_000
"""Layers and their initialisers, those of a nested model once for each of its calls."""

MAX_ELEMENTS = 1 << 26
"""Elements of any one activation: 256 MiB in float32."""

MAX_NUMBER = 1 << 24
"""Largest whole number among the sizes that a layer has; windows and index tables of that many
elements are computed while a model is built."""

SMALL_ELEMENTS = 1 << 20
"""Weights that a model may always ask for, whatever the file holds: the mismatch is found, and
named with its layer, when they are read."""
