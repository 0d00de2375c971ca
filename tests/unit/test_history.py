"""The history of figures: JSON lines, one for each commit and model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from edgecompress import checkout, cli
from edgecompress.report import Change, Report, history
from edgecompress.report.checks import ReportError
from edgecompress.report.history import Entry
from tests.conftest import need
from tests.reports import REPORT, changed

DATE = "2026-03-01T12:00:00+00:00"
FIGURES = {
    "size.tflite": 8000,
    "size.arena": 2000,
    "size.aot_arena": 500,
    "size.params": 208,
    "size.macs": 4500,
    "accuracy.test": 0.93,
    "accuracy.noisy": 0.8,
    "board.nano33.flash": 90000,
    "board.nano33.ram": 46000,
    "board.nano33.arena": 500,
    "board.nano33.cycles": 12000,
    "board.nano33.microseconds": 187.5,
    "board.pico.arena": 500,
    "board.qemu_m4.flash": 6016,
    "board.qemu_m4.ram": 576,
    "board.qemu_m4.arena": 500,
    "board.qemu_m4.stack": 320,
    "board.qemu_m4.instructions": 9000,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where there is the run build/tiny and, of a smaller model, small.json."""
    REPORT.save(tmp_path / "build" / "tiny")
    size = {**vars(REPORT.size), "tflite": Change(20000, 7600), "macs": Change(9000, None)}
    (tmp_path / "small.json").write_text(changed(size=type(REPORT.size)(**size)).to_json())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_entry_has_every_figure_that_was_measured() -> None:
    entry = history.entry(REPORT, date=DATE, commit="c0ffee")
    assert entry == Entry(DATE, "c0ffee", "tiny", "ab" * 32, FIGURES)
    assert [type(value) for value in entry.figures.values()] == [type(n) for n in FIGURES.values()]


def test_a_commit_is_added_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    add = ["history", "out/h.jsonl", "--add"]
    when = ["--date", "2026-03-02", "--commit"]
    assert cli.main([*add, "tiny", "--date", DATE, "--commit", "1111111111ff"]) == 0
    first = (folder / "out" / "h.jsonl").read_text()
    assert json.loads(first) == {
        "date": DATE,
        "commit": "1111111111ff",
        "model": "tiny",
        "sha256": "ab" * 32,
        "figures": FIGURES,
    }
    assert cli.main([*add, "build/tiny", *when, "2222"]) == 0
    assert cli.main([*add, "small.json", *when, "2222"]) == 0
    text = (folder / "out" / "h.jsonl").read_text()
    assert text.startswith(first)
    assert len(text.splitlines()) == 2
    assert history.read(folder / "out" / "h.jsonl")[1].figures["size.tflite"] == 7600
    capfd.readouterr()
    assert cli.main(["history", "out/h.jsonl"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == ["tiny", "1111111111", "2026-03-01", "2222", "2026-03-02"]
    assert ["size.tflite", "8,000", "7,600", "(-5.0%)"] in lines
    assert ["size.macs", "4,500", "not", "measured"] in lines
    assert ["accuracy.test", "0.93", "0.93"] in lines
    assert (folder / "out" / "h.jsonl").read_text() == text


def test_entries_stand_by_date_wherever_their_lines_are(tmp_path: Path) -> None:
    dates = ("2026-03-03", "2026-03-02T01:00:00+02:00", "2026-03-01T23:30:00", "2026-03-02")
    entries = [history.entry(REPORT, date=date, commit=f"c{i}") for i, date in enumerate(dates)]
    ordered = [entries[i] for i in (1, 2, 3, 0)]
    assert list(history.added(entries[:2], entries[2:])) == ordered
    history.write(tmp_path / "h.jsonl", entries)
    assert list(history.read(tmp_path / "h.jsonl")) == ordered


def test_the_last_commits_are_shown_against_the_one_before() -> None:
    entries = [
        Entry(f"2026-01-0{day}", f"c{day}", "m\nx", "", {"size.tflite": 100 * day, "size.macs": 0})
        for day in (1, 2, 3)
    ]
    entries[2] = Entry("2026-01-03", "c3", "m\nx", "", {"size.tflite": 150, "size.macs": 7})
    ((headings, rows),) = history.tables(entries, last=2)
    assert headings == ("m?x", "c2 2026-01-02", "c3 2026-01-03")
    assert rows == [
        ("size.tflite", "200 (+100.0%)", "150 (-25.0%)"),
        ("size.macs", "0", "7 (was 0)"),
    ]


def test_the_commit_comes_from_the_checkout(folder: Path) -> None:
    need("git")
    add = ["history", "h.jsonl", "--add", "tiny"]
    assert checkout.head() is None
    assert cli.main(add) == 2
    author = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    commit = ["commit", "-q", "--allow-empty", "-m", "one"]
    date = {"GIT_COMMITTER_DATE": "2026-03-01T12:00:00Z", "GIT_CONFIG_GLOBAL": "/dev/null"}
    for command in (["init", "-q"], [*author, *commit]):
        subprocess.run(["git", *command], check=True, env={**os.environ, **date})
    assert cli.main(add) == 0
    (entry,) = history.read(folder / "h.jsonl")
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert (entry.commit, entry.date) == (found.stdout.strip(), DATE)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("model"), "missing key model"),
        (lambda t: t.update(extra=1), "unknown key extra; allowed: commit, date, .*"),
        (lambda t: t.update(date="soon"), "date = 'soon': write it as 2026-03-01T12:00:00"),
        (lambda t: t.update(commit="a b"), "commit = 'a b': write a commit's hash or tag"),
        (lambda t: t["figures"].update({"size.macs": "9"}), "figures.size.macs = '9': write a .*"),
        (lambda t: t["figures"].update({"size.macs": None}), "figures.size.macs = None: write .*"),
    ],
)
def test_reading_is_strict(tmp_path: Path, edit: object, message: str) -> None:
    path = tmp_path / "h.jsonl"
    history.write(path, [history.entry(REPORT, date=DATE, commit="1")])
    table = json.loads(path.read_text())
    edit(table)  # type: ignore[operator]
    path.write_text(path.read_text() + json.dumps(table) + "\n")
    with pytest.raises(ReportError, match=f"^{path}:2: {message}$"):
        history.read(path)


def test_what_is_no_history_is_said(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = folder / "h.jsonl"
    assert cli.main(["history", "h.jsonl"]) == 1
    assert "h.jsonl: no such history; --add makes it" in capfd.readouterr().err
    for text in ("{", '{"a": NaN}', "[" * 99999):
        path.write_text(text)
        assert cli.main(["history", "h.jsonl", "--add", "tiny"]) == 1
        assert path.read_text() == text
    assert cli.main(["history", "h.jsonl", "--commit", "1"]) == 2
    path.unlink()
    assert cli.main(["history", "h.jsonl", "--add", "tiny", "--date", "x", "--commit", "1"]) == 1
    assert cli.main(["history", "h.jsonl", "--add", "gone", "--date", DATE, "--commit", "1"]) == 1
    assert not path.exists()


def test_the_trend_is_a_page(folder: Path) -> None:
    history.write(folder / "h.jsonl", [history.entry(REPORT, date=DATE, commit="c0ffee")])
    assert cli.main(["history", "h.jsonl", "--html", "trend.html"]) == 0
    page = (folder / "trend.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "c0ffee" in page
    assert Report.read(folder / "build" / "tiny") == REPORT
