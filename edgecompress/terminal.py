"""Where the command line's words go: answers to stdout, talk and progress to stderr."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from edgecompress.progress import Progress, silent


class Terminal:
    """Where the answers go (stdout) and where talk and progress go (stderr)."""

    def __init__(self, out: IO[str], err: IO[str], *, talk: bool) -> None:
        self.out, self.err, self.talk = out, err, talk

    def say(self, text: str = "") -> None:
        """One line of the answer."""
        print(harmless(text), file=self.out, flush=True)

    def note(self, text: str) -> None:
        """One line beside the answer."""
        print(harmless(text), file=self.err, flush=True)

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1
    ) -> None:
        """Columns, the first `words` to the left and the numbers behind them to the right."""
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, heading in enumerate(headings):
            table.add_column(heading, justify="left" if i < words else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(harmless, row))
        width = None if self.out.isatty() else 160
        Console(file=self.out, width=width, highlight=False, markup=False).print(table)

    @contextmanager
    def bars(self) -> Iterator[Progress]:
        """Progress bars on a terminal, one line a stage elsewhere."""
        if not self.talk:
            yield silent
        elif not self.err.isatty():
            yield self._lines()
        else:
            with self._rich() as progress:
                yield progress

    def _lines(self) -> Progress:
        seen: set[str] = set()

        def progress(label: str, done: int, total: int) -> None:
            if label not in seen:
                seen.add(label)
                self.note(f"{label} ...")

        return progress

    @contextmanager
    def _rich(self) -> Iterator[Progress]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn())
        with Bars(*columns, TimeElapsedColumn(), console=Console(file=self.err)) as bars:
            tasks: dict[str, Any] = {}

            def progress(label: str, done: int, total: int) -> None:
                if label not in tasks:
                    tasks[label] = bars.add_task(label, total=total)
                bars.update(tasks[label], completed=done, total=total)

            yield progress


def harmless(text: str) -> str:
    """`text` without what a terminal takes for a command: names come out of model files."""
    return _COMMANDS.sub("?", text)


_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@contextmanager
def streams(verbose: bool, talk: bool) -> Iterator[Terminal]:
    """A Terminal on copies of stdout and stderr, with what native libraries write to the real
    file descriptors kept in a temporary file (unless `verbose`)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")
    if verbose:
        yield Terminal(sys.stdout, sys.stderr, talk=talk)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with (
        tempfile.TemporaryFile() as sink,
        os.fdopen(os.dup(1), "w") as out,
        os.fdopen(os.dup(2), "w") as err,
    ):
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield Terminal(out, err, talk=talk)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
