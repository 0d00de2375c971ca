"""The command line without a model: start-up, streams, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgecompress
from edgecompress import cli
from edgecompress.commands.options import JSON
from edgecompress.errors import EdgeCompressError
from edgecompress.recipe import Recipe, find
from edgecompress.recipe.grammar import WORDS
from edgecompress.terminal import Terminal

HEAVY = {"tensorflow", "keras", "tf_keras", "numpy", "rich"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom edgecompress.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = python(code)
    assert "heavy: []" in out
    for command in cli.COMMANDS:
        assert f"    {command} " in out


def test_the_public_names_are_what_all_says() -> None:
    assert edgecompress.__all__ == sorted(edgecompress.__all__)
    code = (
        "import edgecompress as ec\nfrom edgecompress import pipeline\n"
        "print([n for n in ec.__all__ if type(getattr(ec, n)).__name__ == 'module'])"
    )
    assert python(code) == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'gone'"):
        edgecompress.gone  # noqa: B018


def test_what_native_code_says_is_hidden_unless_verbose(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def chatter(args: object, terminal: Terminal) -> None:
        os.write(1, b"native stdout\n")
        os.write(2, b"native stderr\n")
        terminal.say("the answer")

    monkeypatch.setitem(cli.COMMANDS, "models", (chatter, "list the zoo", ()))
    assert cli.main(["models"]) == 0
    assert capfd.readouterr() == ("the answer\n", "")
    assert cli.main(["models", "-v"]) == 0
    out, err = capfd.readouterr()
    assert "native stdout" in out
    assert "native stderr" in err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; earlier output is untouched"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (ZeroDivisionError("oh\nno"), 70, "a bug: ZeroDivisionError: oh no; run again with -v,"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(args: object, terminal: Terminal) -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "models", (fail, "list the zoo", ()))
    assert cli.main(["models"]) == code
    assert capfd.readouterr().err.startswith(f"edgecompress: {message}")


def test_a_polite_request_to_end_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def wait(args: object, terminal: Terminal) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleaned.append(True)

    monkeypatch.setitem(cli.COMMANDS, "models", (wait, "list the zoo", ()))
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["models"]) == 130
    assert capfd.readouterr().err == "edgecompress: interrupted; earlier output is untouched\n"
    assert cleaned and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("ends", [["255"], ["0", "high"]])
def test_a_range_is_two_numbers(ends: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compress", "kws", "--input-range", *ends])
    assert "argument --input-range: " in capfd.readouterr().err
    given = cli.parser().parse_args(["compress", "kws", "--input-range", "-1", "1"])
    assert given.input_range == [-1.0, 1.0]


def test_a_recipe_is_printed_as_a_file_to_start_from(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["recipe", "prune50x4-distil-qat4"]) == 0
    path = tmp_path / "recipe.toml"
    path.write_text(capfd.readouterr().out)
    assert Recipe.read(path) == find("prune50x4-distil-qat4")
    assert cli.main(["recipe"]) == 0
    shown = capfd.readouterr().out
    assert all(f"{word.example} " in shown for word in WORDS)
    assert cli.main(["recipe", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["files"] == ["data-free", "distilled", "few-samples"]
    assert [row["word"] for row in told["words"]] == [word.example for word in WORDS]
    assert cli.main(["recipe", "qat-prune50"]) == 2
    assert "write 'prune50-qat'" in capfd.readouterr().err


def test_what_an_interrupt_left_is_taken_or_thrown_away(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compress", "kws", "--restart", "--finish"]) == 2
    assert "--restart and --finish: one throws away" in capfd.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "2.5", "many"])
def test_counts_are_checked_at_the_door(count: str, capfd: pytest.CaptureFixture[str]) -> None:
    for option in ("--runs", "--samples"):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["measure", "kws", "--board", "host", f"{option}={count}"])
        assert f"{option}: {count}: give a whole number, 1 or more" in capfd.readouterr().err


def test_a_bug_is_raised_under_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object, terminal: Terminal) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(cli.COMMANDS, "models", (fail, "list the zoo", ()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["models", "-v"])


def test_a_name_out_of_a_model_is_no_command_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b]0;title\x07\x9b2J"

    def tells(args: object, terminal: Terminal) -> None:
        terminal.say(f"{name}\n\tb")
        terminal.note(name)
        terminal.table(("layer",), [(name,)])
        raise EdgeCompressError(name)

    monkeypatch.setitem(cli.COMMANDS, "models", (tells, "list the zoo", ()))
    assert cli.main(["models"]) == 1
    shown = "a?]0;title??2J"
    out, err = capfd.readouterr()
    assert (out.split(), err) == (
        [shown, "b", "layer", shown], f"{shown}\nedgecompress: {shown}\n"
    )  # fmt: skip


def test_progress_is_one_line_a_stage_where_stderr_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(args: object, terminal: Terminal) -> None:
        with terminal.bars() as progress:
            for done in range(3):
                progress("count", done, 2)

    monkeypatch.setitem(cli.COMMANDS, "models", (work, "list the zoo", (JSON,)))
    assert cli.main(["models"]) == 0
    assert capfd.readouterr().err == "count ...\n"
    assert cli.main(["models", "--json"]) == 0
    assert capfd.readouterr().err == ""
