"""Options that several commands have, and what a command is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from edgecompress.terminal import Terminal
from edgecompress.vocabulary import BACKENDS, OPTIMIZE

Command: TypeAlias = Callable[[argparse.Namespace, Terminal], None]
Options: TypeAlias = tuple[tuple[str, Mapping[str, Any]], ...]
Commands: TypeAlias = Mapping[str, tuple[Command, str, Options]]
"""By name: the function, its help, its options (names, blanks between them, and settings)."""


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


MODEL = ("model", {"metavar": "MODEL", "help": "a name of the zoo"})


FILE = {"help": "a name of the zoo, a .keras, .h5 or .tflite, a SavedModel or a run directory"}


DATA = "an .npz (x, y, x_train, ...), a folder of class folders, or file.py:function"
CODE = "FILE.py:FUNCTION"
FEATURES = "makes rows of a folder's files"


BUDGET = ("--budget", {"type": Path, "help": "budget.toml (default: the zoo model's)"})


SEED = ("--seed", {"type": int, "help": "of every random choice"})


COMPRESSED = (
    "model",
    {"metavar": "MODEL", "help": "a model that was compressed, a run directory or a .tflite"},
)


OPTIMIZED = (
    "--optimize",
    {"choices": OPTIMIZE, "default": "balanced", "help": "what kernels are chosen for"},
)


BACKEND = ("--backend", {"choices": BACKENDS, "default": "aot", "help": "default: aot"})


BOARD = (
    COMPRESSED,
    ("--board", {"required": True, "help": "the board's name (see boards)"}),
    BACKEND,
    OPTIMIZED,
    ("--out", {"type": Path, "help": "run directory (default build/MODEL)"}),
)


PORT = ("--port", {"help": "the board's serial port (default: found by its USB ids)"})


JSON = ("--json", {"action": "store_true", "help": "the answer as JSON on stdout"})
