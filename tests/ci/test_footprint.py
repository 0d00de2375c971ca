"""What a CI job calls, on a checkout with a base commit: measured, compared, told, judged."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edgecompress.report import Report, history
from tests.ci.forge import CI, ROOT, script
from tests.conftest import need
from tests.reports import REPORT

MARKER = script("sticky").MARKER
ACTION = ROOT / ".github" / "actions" / "footprint"
COMMAND = """\
import pathlib, shutil, sys
command, *rest = sys.argv[1:]
here = pathlib.Path(__file__).parent
with (here / "called").open("a") as file:
    print(command, *rest, file=file)
if command == "compress":
    folder = pathlib.Path(rest[rest.index("--out") + 1])
    folder.mkdir(parents=True)
    shutil.copy(here / f"{rest[0]}.json", folder / "report.json")
elif command == "report":
    (pathlib.Path(rest[0]) / "report.html").write_text("page")
    (here / "fails").exists() and sys.exit("edgecompress: [qemu_m4] `it` is @broken")
    sys.exit(3)
else:
    from edgecompress.cli import main
    sys.exit(main([command, *rest]))
"""
"""Stands for edgecompress: what is compressed is known beforehand, the comparison is its own."""


def sized(tflite: int, name: str = "tiny") -> Report:
    size = dataclasses.replace(
        REPORT.size, tflite=dataclasses.replace(REPORT.size.tflite, after=tflite)
    )
    (limit, *others) = REPORT.budget
    budget = (dataclasses.replace(limit, measured=float(tflite)), *others)
    return dataclasses.replace(REPORT, name=name, size=size, budget=budget)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose last commit is a merge's: HEAD^1 has the base's report."""
    need("git")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "GITHUB_EVENT_PATH"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "check out"
    (folder / "footprint").mkdir(parents=True)
    (folder / "footprint" / "tiny.json").write_text(sized(8000).to_json())
    (folder / "footprint" / "older").mkdir()
    (folder / "footprint" / "older" / "tiny.json").write_text("not ours")
    (tmp_path / "stand_in.py").write_text(COMMAND)
    (tmp_path / "tiny.json").write_text(sized(8100).to_json())

    def git(*arguments: str) -> None:
        named = [
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.test",
            "-c",
            "init.defaultBranch=m",
        ]
        subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "base")
    git("rm", "-r", "footprint")
    git("commit", "-m", "head")
    return folder


def measured(
    checkout: Path, *options: str, models: tuple[str, ...] = ("tiny",), **variables: str
) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} {checkout.parent / 'stand_in.py'}"
    return subprocess.run(
        [sys.executable, CI / "footprint.py", *models, "--command", command, *options],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
    )


def test_what_is_measured_is_compared_with_the_base_commit(checkout: Path) -> None:
    done = measured(checkout, "--base-commit", "HEAD^1", "--boards", "qemu_m4,pico")
    assert done.returncode == 0, done.stderr
    out = checkout / "build" / "footprint"
    text = (out / "comment.md").read_text()
    assert text.startswith(MARKER)
    assert "| .tflite bytes | 8,000 | 8,100 | +100" in text
    assert script("sticky").safe(text) == text
    assert Report.read(out / "head" / "tiny.json") == sized(8100)
    assert (out / "head" / "tiny.html").read_text() == "page"
    assert json.loads((out / "diff.json").read_text())
    assert "size.tflite" in (out / "diff.csv").read_text()
    called = (checkout.parent / "called").read_text().splitlines()
    assert called[:2] == [
        "compress tiny --out build/footprint/runs/tiny",
        "report build/footprint/runs/tiny --board qemu_m4,pico",
    ]


def test_over_budget_is_status_3_and_told(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(sized(9000).to_json())
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 12}}))
    summary, output = tmp_path / "summary", tmp_path / "output"
    done = measured(
        checkout,
        *("--base-commit", "HEAD^1", "--out", "out"),
        GITHUB_EVENT_PATH=str(event),
        GITHUB_STEP_SUMMARY=str(summary),
        GITHUB_OUTPUT=str(output),
    )
    assert done.returncode == 3, done.stderr
    text = (checkout / "out" / "comment.md").read_text()
    assert "8,192" in text and "+1,000" in text
    assert summary.read_text() == text
    assert output.read_text() == "verdict=over budget\ncomment=out/comment.md\n"
    folder = checkout / "out" / "comment"
    assert (folder / "number").read_text() == "12\n"
    assert (folder / "comment.md").read_text() == text
    assert {file.name for file in folder.iterdir()} == {
        script("github").COMMENT,
        script("github").NUMBER,
    }


def test_a_budget_may_be_given(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "budget.toml").write_text("[size]\ntflite = 8050\n")
    done = measured(checkout, "--base-commit", "HEAD^1", "--budget", "../budget.toml")
    assert done.returncode == 3
    assert "8,050" in (checkout / "build" / "footprint" / "comment.md").read_text()


def test_a_base_without_reports_is_said(checkout: Path) -> None:
    done = measured(checkout, "--base-commit", "HEAD")
    assert done.returncode == 0, done.stderr
    text = (checkout / "build" / "footprint" / "comment.md").read_text()
    assert "Comparison skipped because" in text and "8,100" in text
    done = measured(checkout, "--base-commit", "HEAD^1", "--base", "footprint/tiny.json")
    assert done.returncode == 1
    assert "footprint/tiny.json is no folder in the base's commit HEAD^1" in done.stderr
    done = measured(checkout, "--base-commit", "HEAD~5")
    assert done.returncode == 1
    assert "the base's commit HEAD~5 is not in this checkout" in done.stderr
    text = (checkout / "build" / "footprint" / "comment.md").read_text()
    assert "the base's commit HEAD~5 is not in this checkout" in text and "8,100" not in text


def test_a_failure_leaves_no_earlier_comparison(checkout: Path, tmp_path: Path) -> None:
    assert measured(checkout, "--base-commit", "HEAD^1").returncode == 0
    other = checkout / "build" / "footprint" / "other"
    other.write_text("stays")
    (tmp_path / "fails").touch()
    done = measured(checkout, "--base-commit", "HEAD^1")
    assert done.returncode == 1
    assert {file.name for file in other.parent.iterdir()} == {"head", "runs", "comment.md", "other"}
    text = (checkout / "build" / "footprint" / "comment.md").read_text()
    assert "Comparison skipped because `edgecompress report" in text
    assert "is @\u200bbroken" in text and "8,100" not in text


def test_run_directories_are_taken_as_they_are(checkout: Path) -> None:
    for name, report in (("a", sized(8050)), ("b", sized(8060, "second")), ("c", sized(8070))):
        (checkout / name).mkdir()
        (checkout / name / "report.json").write_text(report.to_json())
    done = measured(checkout, models=("a", "b"))
    assert done.returncode == 0, done.stderr
    head = checkout / "build" / "footprint" / "head"
    assert {file.stem for file in head.iterdir()} == {"tiny", "second"}
    done = measured(checkout, models=("a", "c"))
    assert done.returncode == 2
    assert "two models have the name tiny" in done.stderr


def test_what_is_within_budget_is_kept_as_the_next_base(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(sized(9000).to_json())
    assert measured(checkout, "--keep", "footprint").returncode == 3
    assert not (checkout / "footprint").exists()
    (tmp_path / "tiny.json").write_text(sized(8100).to_json())
    for _ in range(2):
        done = measured(checkout, "--keep", "footprint")
        assert done.returncode == 0, done.stderr
    assert Report.read(checkout / "footprint" / "tiny.json") == sized(8100)
    (line,) = (checkout / "footprint" / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["figures"]["size.tflite"] == 8100
    assert "nothing changed" in (checkout / "build" / "footprint" / "comment.md").read_text()


def test_the_projects_own_base_can_be_compared_with() -> None:
    reports = sorted((ROOT / "footprint").glob("*.json"))
    for file in reports:
        report = Report.read(file)
        report.check()
        assert report.name == file.stem
    entries = history.read(ROOT / "footprint" / "history.jsonl")
    assert {entry.model for entry in entries} >= {file.stem for file in reports} >= {"kws"}


def _github() -> tuple[str, dict[str, str]]:
    """The action's line, and the variables that its inputs become."""
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    (step,) = (step for step in action["runs"]["steps"] if step.get("id") == "measure")
    given = {name: field["default"] for name, field in action["inputs"].items()}
    given |= {"models": "tiny", "base-commit": "HEAD^1"}
    inputs = {
        name: given[value.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, value in step["env"].items()
    }
    return step["run"], inputs


def _gitlab() -> tuple[str, dict[str, str]]:
    """The job's line, and its variables."""
    job = yaml.safe_load((CI / "gitlab-footprint.yml").read_text())["footprint"]
    ready, measure = job["script"]
    assert ready.endswith(".venv/.ready tools")
    (post,) = job["after_script"]
    assert post.endswith('"$EDGECOMPRESS/ci/gitlab.py" build/footprint/comment.md')
    return measure, {
        **job["variables"],
        "MODELS": "tiny",
        "EDGECOMPRESS": "../ci home",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": "HEAD^1",
    }


@pytest.mark.parametrize("service", [_github, _gitlab])
def test_the_services_call_it(
    service: Callable[[], tuple[str, dict[str, str]]], checkout: Path, tmp_path: Path
) -> None:
    """Their own line, in a copy of the place that they find it in."""
    home = tmp_path / "ci home"
    (home / ".github" / "actions" / "footprint").mkdir(parents=True)
    shutil.copytree(CI, home / "ci")
    programs = home / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, code in (("python", ""), ("edgecompress", f'"{tmp_path}/stand_in.py" ')):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {code}"$@"\n')
        program.chmod(0o755)
    line, variables = service()
    done = subprocess.run(
        ["sh", "-e", "-c", line],
        cwd=checkout,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "GITHUB_ACTION_PATH": str(home / ".github" / "actions" / "footprint"),
            **variables,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "| +100" in (checkout / "build" / "footprint" / "comment.md").read_text()
