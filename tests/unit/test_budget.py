"""Budgets: the file's form, verdicts and their causes, limits moved knowingly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress import acceptance, budget, cli, zoo
from edgecompress.budget import (
    AccuracyLimit,
    BoardLimit,
    Bounds,
    Budget,
    SizeLimit,
    judge,
    parse_size,
)
from edgecompress.errors import BudgetExceeded, ConfigError
from edgecompress.report import Change, Report, Verdict, causes
from edgecompress.report.checks import ReportError
from tests.reports import EMULATED, REAL, REPORT, UNBUILT, changed

WHOLE = """
# limits of tiny
[accuracy]
min = 0.9       # the floor
max_drop = 0.01

[size]
tflite = "7.5K"
arena = { most = 2500, least = "1K" }
aot_arena = 480

[board.qemu_m4]
flash = { most = "5.5K", least = 100, tolerance = "2%" } # with gcc 12
ram = { most = 600, least = 590 }
instructions = 8_500   # counted
stack = 400
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "budget.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "size"), [(12, 12), ("12", 12), ("48K", 49152), ("1.5 MiB", 1572864), ("2kb", 2048)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


def test_every_form_of_a_limit_is_read(tmp_path: Path) -> None:
    assert Budget.read(written(tmp_path, WHOLE)).limits() == (
        Verdict("size.aot_arena", None, 480, 0, None),
        Verdict("size.arena", 1024, 2500, 0, None),
        Verdict("size.tflite", None, 7680, 0, None),
        Verdict("accuracy.max_drop", None, 0.01, 0, None),
        Verdict("accuracy.min", 0.9, None, 0, None),
        Verdict("board.qemu_m4.flash", 100, 5632, 0.02, None),
        Verdict("board.qemu_m4.ram", 590, 600, 0, None),
        Verdict("board.qemu_m4.stack", None, 400, 0, None),
        Verdict("board.qemu_m4.instructions", None, 8500, 0, None),
    )
    assert Budget.read(written(tmp_path, "")) == Budget()
    assert Budget().limits() == ()
    tflm = Budget(board={"nano33-tflm": BoardLimit(cycles=5, microseconds=3, arena=9)})
    assert [limit.limit for limit in tflm.limits()] == [
        "board.nano33-tflm.arena",
        "board.nano33-tflm.cycles",
        "board.nano33-tflm.microseconds",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[size]\ntflite = "4 apples"\n', "size.tflite: size '4 apples': write bytes, or .*"),
        ("[size]\narena = -1\n", "size.arena: size -1: write bytes, or .*"),
        ("[size]\narena = true\n", "size.arena = True: write a whole number or a string or .*"),
        (f"[size]\nmacs = '{'9' * 400}'\n", "size.macs: size '9+': write bytes, or .*"),
        (
            "[size]\nflash = 1\n",
            "unknown key size.flash; allowed: aot_arena, arena, macs, params, tflite",
        ),
        ("[size]\narena = {}\n", "size.arena: nothing is limited; give most, least or both"),
        (
            "[size]\narena = {most = 1, least = '1K'}\n",
            "size.arena: least = '1K' is above most = 1.0",
        ),
        (
            "[size.arena]\nmost = 1\ntolerence = 0.1\n",
            r"unknown key size.arena.tolerence \(did you mean tolerance\?\); .*",
        ),
        (
            "[size]\narena = {most = 1, tolerance = '2'}\n",
            "size.arena.tolerance = '2': write a share such as 0.02, or 2%",
        ),
        (
            "[size]\narena = {most = 1, tolerance = 1}\n",
            "size.arena.tolerance = 1.0: write a share such as 0.02, or 2%",
        ),
        ("[accuracy]\nmax_drop = nan\n", "accuracy.max_drop = nan: write a number or a table"),
        ("[accuracy]\nmin = '1'\n", "accuracy.min = '1': write a number or a table"),
        ("[accuracy]\nmin = {least = '1'}\n", "accuracy.min = '1': use a finite number"),
        ("[board.nano]\nflash = 1\n", "board.nano: no such board; allowed: esp32s3, host, .*"),
        ("[board.qemu_m4-aot]\nflash = 1\n", "board.qemu_m4-aot: no such board; allowed: .*"),
        ("[board]\nqemu_m4 = 1\n", "board.qemu_m4 = 1: write it as a table"),
        (
            "[board.qemu_m4]\nfalsh = 1\n",
            r"unknown key board.qemu_m4.falsh \(did you mean flash\?\); allowed: arena, .*",
        ),
        (
            "[board.qemu_m4]\ncycles = 1\n",
            "board.qemu_m4.cycles: not measured on qemu_m4; allowed: flash, ram, arena, stack, .*",
        ),
        (
            "[board.qemu_m4-tflm]\nmicroseconds = 1\n",
            "board.qemu_m4-tflm.microseconds: not measured on qemu_m4; allowed: .*",
        ),
        ("[board.host]\nflash = 1\n", "board.host.flash: not measured on host; allowed: arena, .*"),
    ],
)
def test_a_wrong_budget_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{path}: {message}$"):
        Budget.read(path)


def test_a_limit_that_nothing_can_meet_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^accuracy.max_drop = nan: use a finite number$"):
        Budget(AccuracyLimit(max_drop=float("nan")))


@pytest.mark.parametrize("name", zoo.names())
def test_the_budgets_of_the_zoo_are_valid(name: str) -> None:
    path = budget.of_zoo(name)
    assert path is not None
    assert Budget.read(path).limits()
    assert budget.of_zoo("no such model") is None


def test_a_report_is_judged_limit_by_limit() -> None:
    limits = Budget(
        AccuracyLimit(max_drop=0.02, min=0.94),
        SizeLimit(tflite=8000, arena=Bounds(least="2K")),
        {"qemu_m4": BoardLimit(flash=6016, stack=319), "nano33": BoardLimit(microseconds=187)},
    )
    verdicts = judge(REPORT, limits).budget
    assert [(each.limit, each.measured, each.ok) for each in verdicts] == [
        ("size.arena", 2000, False),
        ("size.tflite", 8000, True),
        ("accuracy.max_drop", pytest.approx(0.02), True),
        ("accuracy.min", 0.93, False),
        ("board.nano33.microseconds", 187.5, False),
        ("board.qemu_m4.flash", 6016, True),
        ("board.qemu_m4.stack", 320, False),
    ]


def test_what_was_not_measured_breaks_its_limit() -> None:
    report = changed(size=dataclasses.replace(REPORT.size, arena=Change(1, None)), accuracy=())
    found = judge(report, Budget(AccuracyLimit(max_drop=1.0), SizeLimit(arena=10**9)))
    with pytest.raises(BudgetExceeded, match=r"size.arena is not measured.*max_drop is not meas"):
        found.check()


def test_limits_of_boards_that_were_not_measured_are_not_checked() -> None:
    built = dataclasses.replace(EMULATED, board="qemu_m3", timing=None, profile=(), stack=None)
    report = changed(boards=(UNBUILT, built, REAL))
    limits = BoardLimit(flash=1, arena=1, stack=1)
    paced = BoardLimit(instructions=1, flash=1)
    names = {"pico": limits, "nano33": limits, "qemu_m4": paced, "qemu_m3": paced}
    found = judge(report, Budget(board=names))
    assert [verdict.limit for verdict in found.unchecked] == [
        "board.pico.flash",
        "board.pico.stack",
        "board.qemu_m3.instructions",
        "board.qemu_m4.flash",
        "board.qemu_m4.instructions",
    ]
    measured = {verdict.limit: verdict.measured for verdict in found.budget}
    assert measured == {
        "board.nano33.flash": 90000,
        "board.nano33.arena": 500,
        "board.nano33.stack": None,  # it ran, and did not tell
        "board.pico.arena": 500,
        "board.qemu_m3.flash": 6016,
    }
    later = budget.again(dataclasses.replace(found, boards=(*found.boards, EMULATED)))
    assert {verdict.limit for verdict in later.budget} >= {"board.qemu_m4.instructions"}
    assert len(later.unchecked) == 3


@given(
    least=st.none() | st.integers(0, 10**6),
    room=st.none() | st.integers(0, 10**6),
    tolerance=st.floats(0, 0.99),
    measured=st.integers(0, 10**7),
    step=st.integers(1, 10**6),
)
def test_a_verdict_is_monotone(
    least: int | None, room: int | None, tolerance: float, measured: int, step: int
) -> None:
    """Beyond a bound more is never better, and a limit that is kept stays kept towards it."""
    most = None if room is None else (least or 0) + room
    here, more = (
        Verdict("size.tflite", least, most, tolerance, n) for n in (measured, measured + step)
    )
    assert (here.ok or least is not None) or not more.ok
    assert (more.ok or most is not None) or not here.ok
    if here.excess >= 0 and more.ok:
        assert here.ok
    if more.excess <= 0 and here.ok:
        assert more.ok
    assert (here.excess > 0) == (most is not None and measured > most)
    assert here.ok or here.excess
    wider = dataclasses.replace(here, tolerance=min(tolerance + 0.009, 0.999))
    assert wider.ok or not here.ok


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (
            "size.tflite",
            "the rest of the file 7,768 bytes; weights of conv 116 bytes; weights of classes 116"
            " bytes",
        ),
        ("size.params", "conv 104 parameters; classes 104 parameters"),
        ("size.macs", "conv 2,500 MACs; classes 2,000 MACs"),
        ("size.arena", "the interpreter's own 1,850 bytes; activations alive at conv 150 bytes"),
        ("size.aot_arena", "conv:0 in place over x 400 bytes; x 250 bytes"),
        ("board.qemu_m4.arena", "conv:0 in place over x 400 bytes; x 250 bytes"),
        (
            "board.qemu_m4.flash",
            "weights of classes 3,000 bytes; weights of conv 1,000 bytes; kernels of conv 700"
            " bytes",
        ),
        ("board.qemu_m4.ram", "the arena 500 bytes; buffer 60 bytes; state 16 bytes"),
        (
            "board.qemu_m4.instructions",
            "conv 6,000 instructions; classes 2,800 instructions; pool 100 instructions",
        ),
        (
            "accuracy.min",
            "quantising lost 0.015; pruning lost 0.01; least SQNR: conv 30.5 dB, classes 30.5 dB",
        ),
        ("board.qemu_m4.stack", ""),
        ("board.nano33.flash", ""),
        ("board.nano33.cycles", ""),
        ("board.teensy41.flash", ""),
    ],
)
def test_causes_are_the_largest_contributions(limit: str, told: str) -> None:
    assert "; ".join(causes.of(REPORT, limit)) == told


def test_what_the_parts_of_a_figure_add_up_to() -> None:
    for limit, whole in (
        ("size.tflite", 8000),
        ("size.params", 208),
        ("size.macs", 4500),
        ("size.arena", 2000),
        ("board.qemu_m4.flash", 6016 - 10),  # but for the padding
        ("board.qemu_m4.ram", 576),
        ("board.qemu_m4.instructions", 9000),
    ):
        assert sum(causes.amounts(REPORT, limit).values()) == whole


def test_growths_are_told_in_both_directions() -> None:
    first = dataclasses.replace(REPORT.operators[0], layer="new", macs=9000)
    head = changed(operators=(first, *REPORT.operators[1:]))
    assert causes.growths(REPORT, head, "size.macs") == ("new +9,000 MACs",)
    assert causes.growths(REPORT, head, "size.macs", less=True) == ("conv -2,500 MACs",)
    assert causes.growths(REPORT, changed(accuracy=()), "accuracy.min") == ()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run directory `tiny` and its budget.toml."""
    written(tmp_path, WHOLE)
    REPORT.save(tmp_path / "build" / "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_broken_limits_are_accepted_knowingly(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["budget", "tiny", "--budget", "budget.toml"]
    assert cli.main(command) == 3
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert ["size.tflite", "<=", "7,680", "8,000", "-320", "OVER"] in rows
    ram = ["board.qemu_m4.ram", "<=", "600", "and", ">=", "590", "576", "-14", "UNDER"]
    assert ram in rows
    assert ["board.qemu_m4.stack", "<=", "400", "320", "80", "ok"] in rows
    assert cli.main([*command, "--accept", "--why", "a wider last layer"]) == 0
    assert (run / "budget.toml").read_text() == (
        WHOLE.replace('"7.5K"', '"7.9K"')
        .replace("480", "500")
        .replace("0.01", "0.02")
        .replace('most = "5.5K"', 'most = "5.9K"')
        .replace("least = 590", "least = 576")
        .replace("8_500", "9000")
    )
    (line,) = (run / "budget.history.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["model"], entry["why"]) == ("tiny", "a wider last layer")
    assert sorted(entry) == ["commit", "date", "limits", "model", "why"]
    assert entry["limits"] == {
        "size.aot_arena": [480, 500],
        "size.tflite": [7680, 8089],
        "accuracy.max_drop": [0.01, 0.02],
        "board.qemu_m4.flash": [5632, 6041],
        "board.qemu_m4.ram": [590, 576],
        "board.qemu_m4.instructions": [8500, 9000],
    }
    judged = Report.read(run / "build" / "tiny")
    assert len(judged.budget) == 9
    judged.check()
    assert "ok   size.tflite is 8,000" in (run / "build" / "tiny" / "report.md").read_text()
    before = (run / "budget.toml").read_bytes()
    capfd.readouterr()
    assert cli.main([*command, "--accept"]) == 0
    assert "nothing to accept" in capfd.readouterr().err
    assert (run / "budget.toml").read_bytes() == before
    assert len((run / "budget.history.jsonl").read_text().splitlines()) == 1


def test_the_ends_of_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_bytes(b'[size]\r\ntflite = "7.5K" # of the file\r\n')
    assert acceptance.accept(REPORT, path, limits=(), why=None, commit=None)
    assert path.read_bytes() == b'[size]\r\ntflite = "7.9K" # of the file\r\n'


def test_single_limits_are_raised_or_lowered(run: Path) -> None:
    command = ["budget", "tiny", "--budget", "budget.toml", "--accept"]
    assert cli.main([*command, "board.qemu_m4.stack", "size.aot_arena", "accuracy.min"]) == 3
    text = (run / "budget.toml").read_text()
    assert "stack = 320" in text
    assert "aot_arena = 500" in text
    assert "min = 0.93       # the floor" in text
    assert 'tflite = "7.5K"' in text
    assert len(Report.read(run / "build" / "tiny").budget) == 9


@pytest.mark.parametrize(
    ("limits", "kind", "message"),
    [
        (("size.ram",), ConfigError, "no limit size.ram; it has size.aot_arena, size.arena, .*"),
        (("board.pico.flash",), ReportError, "board.pico.flash: not measured in this run, so .*"),
    ],
)
def test_what_cannot_be_accepted_is_said(
    run: Path, limits: tuple[str, ...], kind: type[Exception], message: str
) -> None:
    path = written(run, WHOLE + "[board.pico]\nflash = 1\n")
    with pytest.raises(kind, match=message):
        acceptance.accept(REPORT, path, limits=("size.tflite", *limits), why=None, commit=None)
    assert path.read_text().startswith(WHOLE)
    assert not (run / "budget.history.jsonl").exists()


def test_usage_of_budget(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["budget", "tiny"]) == 2
    assert "tiny: no model of the zoo with a budget.toml; give --budget" in capfd.readouterr().err
    assert cli.main(["budget", "tiny", "--budget", "budget.toml", "--why", "so"]) == 2
    assert cli.main(["budget", "gone", "--budget", "budget.toml"]) == 1


@given(
    measured=st.integers(1, 10**9),
    given_=st.sampled_from([5, "5", "3K", "2.5M", "1KiB", 7.0]),
    up=st.booleans(),
)
def test_an_accepted_size_keeps_its_form_and_holds(
    measured: int, given_: float | str, up: bool
) -> None:
    found = acceptance._form(given_, measured, up=up, share=False)
    size = parse_size(found)
    assert size >= measured if up else size <= measured
    step = {"K": 103, "M": 104858}.get(next((c for c in str(given_) if c in "KM"), ""), 0)
    assert abs(size - measured) <= step
    assert isinstance(found, str) == isinstance(given_, str)


@given(measured=st.floats(0, 1), up=st.booleans())
def test_an_accepted_share_holds(measured: float, up: bool) -> None:
    found = acceptance._form(0.5, measured, up=up, share=True)
    assert isinstance(found, float)
    assert found >= measured if up else found <= measured
    assert abs(found - measured) <= 1.001e-4
