"""What the README shows is what happens: its Python runs, its commands parse, its table is real."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from edgecompress import cli
from edgecompress.backends import aot
from edgecompress.budget import Budget
from edgecompress.recipe import Recipe
from edgecompress.report import Report
from tests.conftest import need

ROOT = Path(__file__).resolve().parents[2]
GCC = "12.2.1"
"""The cross compiler that the README's figures were made with."""
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[str]:
    """Every command line of `program` that the README shows, without its comment."""
    shown = [line.partition("#")[0] for block in blocks("") for line in block.splitlines()]
    inline = re.findall(rf"`({program} [^`]+)`", README)
    lines = [line.strip() for line in shown] + inline
    return [line for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("command", commands("edgecompress"))
def test_commands_parse(command: str) -> None:
    args = cli.parser().parse_args(shlex.split(command)[1:])
    assert args.command in command


@pytest.mark.parametrize("command", commands("make"))
def test_make_targets_exist(command: str) -> None:
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_options_table_names_real_options() -> None:
    known = {option for action in _compress_actions() for option in action.option_strings}
    table = "".join(line for line in README.splitlines() if line.startswith("| `--"))
    named = set(re.findall(r"`(--?[a-z-]+)", table))
    assert named <= known
    assert len(named) >= 8


def test_the_table_of_operators_is_whole() -> None:
    rows = [line for line in README.splitlines() if re.match(r"\| [A-Z0-9_]+[,| ]", line)]
    named = {kind for row in rows for kind in re.findall(r"[A-Z][A-Z0-9_]+", row)}
    assert named - {"TFLM"} == set(aot.OPERATORS)


def test_recipe_and_budget_are_valid(tmp_path: Path) -> None:
    on_board, recipe, budget = blocks("toml")
    (tmp_path / "recipe.toml").write_text(recipe)
    (tmp_path / "budget.toml").write_text(budget)
    assert Recipe.read(tmp_path / "recipe.toml").prune.ratio == 0.25
    limits = {each.limit: each.most for each in Budget.read(tmp_path / "budget.toml").limits()}
    assert limits["size.tflite"] == 48 * 1024
    (tmp_path / "budget.toml").write_text(on_board)
    assert len(Budget.read(tmp_path / "budget.toml").limits()) == 3


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert "Accuracy(metric='top1', samples=480" in capsys.readouterr().out


def test_the_table_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EC_DATA_DIR", raising=False)
    assert cli.main(["compress", "kws", "--out", str(tmp_path)]) == 0
    printed = [line.rstrip() for line in capfd.readouterr().out.strip().splitlines()]
    example = next(block for block in blocks("") if block.startswith("kws "))
    shown = [line.rstrip() for line in example.strip().splitlines()]
    if importlib.util.find_spec("tflite_runtime") is None:  # the proof names another runtime
        shown, printed = ([x for x in each if "tflite-micro" not in x] for each in (shown, printed))
    assert shown == printed


def test_the_measurement_is_what_the_board_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for what in ("cc", "arm-gcc", "qemu"):
        need(what)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["flash", "kws", "--board", "qemu_m4"]) == 0  # which compresses it first
    printed = [line.rstrip() for line in capfd.readouterr().out.strip().splitlines()]
    example = next(block for block in blocks("") if block.startswith("kws, backend"))
    if arm_gcc() == GCC:  # another compiler's code is of another size
        assert printed == [line.rstrip() for line in example.strip().splitlines()]
    assert Report.read(tmp_path / "build" / "kws").boards[0].board == "qemu_m4"


def arm_gcc() -> str:
    """The version of the cross compiler."""
    command = ["arm-none-eabi-gcc", "-dumpfullversion"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _compress_actions() -> list[object]:
    subparsers = next(a for a in cli.parser()._actions if a.dest == "command")
    return subparsers.choices["compress"]._actions  # type: ignore[index]
