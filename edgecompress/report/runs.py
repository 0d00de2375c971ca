"""Which report.json a user means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecompress.report.checks import ReportError
from edgecompress.report.report import Report

RUNS = Path("build")
"""Where the runs are that a name alone stands for."""
FILE = "report.json"


def locate(run: str) -> Path:
    """The report.json of `run`: that file itself, a run directory, or the name of a run."""
    path = Path(run)
    if path.is_file():
        return path
    return path / FILE if (path / FILE).is_file() else RUNS / run / FILE


def read_all(path: Path, *, failed: Callable[[str], None] | None = None) -> dict[str, Report]:
    """The reports at `path`, by the names of their models: a report.json, a run directory, or a
    folder with several of either.

    ReportError where there is none, for a bad one and for two of the same model; where `failed` is
    given it is told so instead, and the others are read.
    """
    found: dict[str, Report] = {}
    try:
        files = _files(path)
    except ReportError as error:
        if failed is None:
            raise
        failed(str(error))
        return found
    for file in files:
        try:
            report = Report.read(file)
            if report.name in found:
                raise ReportError(f"{file}: a second report of {report.name}; keep one in {path}")
        except ReportError as error:
            if failed is None:
                raise
            failed(str(error))
        else:
            found[report.name] = report
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / FILE).is_file():
        return [path / FILE]
    found = sorted([*path.glob("*.json"), *path.glob(f"*/{FILE}")])
    if not found:
        raise ReportError(
            f"{path}: no report there; give a report.json, a run directory, or a folder of these"
        )
    return found
