"""Where TFLite Micro comes from for a board: a build that the user names, or a pinned library.

edgecompress neither ships nor builds it. firmware/project.py finds headers and library under
TFLM_DIR; real boards have a library in PlatformIO's registry, where platformio.ini names one.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgecompress.boards import Board
from edgecompress.building import platformio
from edgecompress.errors import ToolError, UnsupportedError

TREE = "TFLM_DIR"
"""The variable of the environment with the folder of a build of TFLite Micro."""
PINNED = "custom_tflm"
"""The option of an environment in platformio.ini that names its library."""

_LIBRARY = "EC_TFLM_LIBRARY"
_HEADER = Path("tensorflow", "lite", "micro", "micro_interpreter.h")


def settings(firmware: Path, board: Board) -> dict[str, str]:
    """The variables by which a build in `firmware` gets TFLite Micro for `board`.

    TFLM_DIR goes before the pinned library. Raises ToolError where it is no tree of TFLite Micro,
    UnsupportedError where there is neither.
    """
    tree = os.environ.get(TREE)
    if tree:
        folder = Path(tree).expanduser().resolve()
        if not (folder / _HEADER).is_file():
            raise ToolError(
                f"{TREE}={tree}: no {_HEADER} in it; name the folder in which TFLite Micro's own"
                " makefile was run"
            )
        return {TREE: str(folder)}
    pinned = platformio.option(firmware, board.id, PINNED)
    if pinned is None:
        raise UnsupportedError(
            f"{board.id}: backend tflm: no pinned TFLite Micro for this board; set {TREE} to a"
            " build of it (headers and libtensorflow-microlite.a, as its own makefile leaves"
            " them), or take --backend aot, which needs no library"
        )
    return {_LIBRARY: pinned}
