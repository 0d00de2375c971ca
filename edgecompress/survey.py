"""One model on several boards: does it fit, and what does it take there?

An emulated board, or this computer, runs the image; a real board's image is built and not put
there. Where it cannot even be built, the emulated board of the same core tells what the model adds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgecompress import boards
from edgecompress.artifact import Artifact
from edgecompress.boards import Board
from edgecompress.building import deployment, firmware
from edgecompress.building.firmware import Image, TooLarge
from edgecompress.errors import EdgeCompressError, ToolError, UnsupportedError
from edgecompress.measuring import measurement, results
from edgecompress.measuring.results import Run
from edgecompress.progress import Progress, silent
from edgecompress.report.boards import TOO_LARGE, BoardRow, Cost
from edgecompress.vocabulary import Backend, Optimize


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of one board: a `row` for the report, the `run` behind it where there was one.

    `error` is why there is no row, or why an image that was built could not be measured."""

    row: BoardRow | None
    run: Run | None = None
    error: EdgeCompressError | None = None


@dataclass(frozen=True, eq=False)
class Question:
    """A quantised model, how it is to be built, and the run directory for what is built."""

    artifact: Artifact
    out: Path
    backend: Backend = "aot"
    optimize: Optimize = "balanced"
    progress: Progress = silent

    def image(self, board: str | Board, out: Path) -> Image:
        """The image for `board`, be it too large; errors of `deployment.build`."""
        return deployment.build(
            self.artifact,
            board=board,
            backend=self.backend,
            optimize=self.optimize,
            out=out,
            oversize=True,
            progress=self.progress,
        )


def ask(question: Question, names: Sequence[str]) -> list[Answer]:
    """The answers for the boards called `names`, in their order.

    Raises ConfigError for an unknown board, and where no board has an answer the error that the
    first one met.
    """
    targets = [boards.load(name) for name in dict.fromkeys(names)]
    with ThreadPoolExecutor(len(targets)) as pool:  # a registry out of reach takes seconds each
        obstacles = list(pool.map(_obstacle, targets))
    asked = list(zip(targets, obstacles, strict=True))
    images: dict[str, Image] = {}
    own = {board: _answer(question, board, images) for board, why in asked if why is None}
    answers = [
        own[board] if why is None else _estimate(question, board, why, images)
        for board, why in asked
    ]
    if all(answer.row is None for answer in answers):
        raise next(answer.error for answer in answers if answer.error is not None)
    return answers


def _obstacle(board: Board) -> ToolError | None:
    """Why the board's image cannot be built on this machine."""
    try:
        firmware.need(board)
    except ToolError as error:
        return error
    return None


def _answer(question: Question, board: Board, images: dict[str, Image]) -> Answer:
    """What the board's own image takes; `images` gets it."""
    try:
        image = images[board.id] = question.image(board, question.out)
    except TooLarge as error:
        return Answer(_unbuilt(question, board, error.why))
    except (ToolError, UnsupportedError) as error:
        return Answer(None, error=error)
    if image.too_large or board.kind == "serial":
        return Answer(results.built(image, image.excess or None))
    try:
        run = measurement.measure(
            image, runs=1 if board.kind == "emulator" else 3, progress=question.progress
        )
    except EdgeCompressError as error:
        return Answer(results.built(image, f"built, not measured: {error}"), error=error)
    return Answer(run.row(), run)


def _estimate(question: Question, board: Board, why: ToolError, images: dict[str, Image]) -> Answer:
    """What the model adds on the emulated board of the same core, and what that leaves."""
    stand_in = next(
        one
        for one in map(boards.load, boards.names())
        if one.kind == "emulator" and one.core == board.core
    )
    if stand_in.id not in images:
        try:
            with tempfile.TemporaryDirectory(prefix="edgecompress-") as folder:
                images[stand_in.id] = question.image(stand_in, Path(folder))
        except (ToolError, UnsupportedError, TooLarge):
            return Answer(None, error=why)
    image = images[stand_in.id]
    cost, found = image.cost, image.footprint
    assert cost is not None and found is not None
    reason = str(why).removeprefix(f"{board.id}: ").partition(";")[0]
    note = (
        f"{_verdict(board, cost)}; not built here: {reason} (see `edgecompress doctor --board"
        f" {board.id}`)"
    )
    row = _unbuilt(question, board, note)
    return Answer(replace(row, cost=cost, arena=found.ram.arena))


def _verdict(board: Board, cost: Cost) -> str:
    """Whether what the model adds leaves room, in words."""
    over, left = [], []
    for memory, takes, has in (
        ("flash", cost.flash, board.flash_bytes),
        ("RAM", cost.ram, board.ram_bytes),
    ):
        if has is not None and takes > has:
            over.append(f"{memory} by {takes - has:,} bytes")
        elif has is not None:
            left.append(f"{has - takes:,} bytes of {memory}")
    by = f"what the model adds on {cost.built_for}"
    if over:
        return f"{TOO_LARGE}: {by} alone is larger than {' and '.join(over)} ({board.memory})"
    return f"fits unless the board's own software takes more than {' or '.join(left)} ({by})"


def _unbuilt(question: Question, board: Board, note: str) -> BoardRow:
    """The row of a board without an image."""
    return BoardRow(
        board=board.id,
        backend=question.backend,
        flash=None,
        ram=None,
        arena=None,
        stack=None,
        timing=None,
        outputs=None,
        note=note,
        optimize=question.optimize if question.backend == "aot" else None,
    )
