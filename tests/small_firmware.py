"""A model written by hand (tests/qemu/model), built for a board and talked to line by line."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecompress.backends import contract
from edgecompress.building import firmware
from edgecompress.building.firmware import Image
from edgecompress.measuring import emulator

MODEL = Path(__file__).parent / "qemu" / "model"
NAME = "two words"
LAST = ("@hello ", "@ok ", "@end ", "@bye", "@fail ")
"""How the last line of an answer starts."""


def sources(**changes: str) -> dict[str, str]:
    """The model's files; each of `changes` is put in the place of the text it names in model.c."""
    files = {file.name: file.read_text() for file in MODEL.iterdir()}
    for old, new in changes.items():
        assert old in files["model.c"], old
        files["model.c"] = files["model.c"].replace(old, new)
    return {"ec_model.h": contract(), **files}


def build(folder: Path, board: str, files: dict[str, str] | None = None) -> Image:
    """The image of `files` (the model as it is) for `board`."""
    return firmware.build(
        sources() if files is None else files, board=board, backend="aot", out=folder, name=NAME
    )


def line(text: str | bytes) -> bytes:
    """`text` as a line of the protocol."""
    plain = text.encode() if isinstance(text, str) else text
    return plain + b" *%08x\n" % zlib.crc32(plain)


class Board:
    """A running board."""

    def __init__(self, child: emulator.Child) -> None:
        self.child = child

    def raw(self, data: bytes) -> list[str]:
        """The answer to `data`: its lines without their CRC, which is checked."""
        self.child.send(data)
        answer: list[str] = []
        while not (answer and answer[-1].startswith(LAST)):
            received = self.child.receive(self.child.timeout)
            assert received is not None, f"{answer} and then silence"
            text = received.decode("ascii").rpartition(" *")[0]
            assert received == line(text)
            answer.append(text)
        return answer

    def ask(self, text: str) -> list[str]:
        """The answer to the line `text`."""
        return self.raw(line(text))

    def load(self, first: bytes, second: bytes) -> None:
        """Send the model's two inputs, of 4 and 100 bytes."""
        assert self.ask(f"@in n=0 o=0 hex={first.hex()}") == ["@ok n=0 o=4"]
        assert self.ask(f"@in n=1 o=0 hex={second[:64].hex()}") == ["@ok n=1 o=64"]
        assert self.ask(f"@in n=1 o=64 hex={second[64:].hex()}") == ["@ok n=1 o=100"]


@contextmanager
def running(image: Image, *, command: list[str] | None = None) -> Iterator[Board]:
    """The board that `image` runs on, or that `command` starts."""
    command = command or emulator.command(image.board, image.elf)
    with emulator.start(command, board=image.board.id, timeout=60) as child:
        yield Board(child)


def fields(text: str) -> dict[str, str]:
    """The keys and values of a line."""
    return dict(part.split("=", 1) for part in text.split(" ")[1:])
