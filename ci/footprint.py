"""Measure models and compare them with the base: what any CI calls.

    python ci/footprint.py kws --boards qemu_m4 --base footprint --base-commit HEAD^1

Each model is one that `edgecompress compress` takes, compressed afresh, or a run directory. OUT
gets head/NAME.json and head/NAME.html, comment.md, diff.json and diff.csv. Exit codes as of
`edgecompress`: 3 over budget. Under GitHub Actions the comment also goes to the job's summary, its
path and the verdict to the step's outputs, and, with the pull request's number, into OUT/comment/,
for the workflow that posts it. With --keep, what is within budget becomes the base of what comes
next.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from sticky import skipped

COMMAND = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "edgecompress"
OVER = 3
HISTORY = "history.jsonl"
MADE = ("head", "base", "runs", "comment", "comment.md", "diff.json", "diff.csv")
"""In OUT, and removed first."""
VERDICTS = {0: "ok", OVER: "over budget"}


class Failed(Exception):
    """A command failed: in a few words, and its exit status."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--boards", default="qemu_m4", help="with commas (default: qemu_m4)")
    parser.add_argument("--base", default="footprint", help="folder of the base's reports")
    parser.add_argument("--base-commit", default="", help="take the folder out of this commit")
    parser.add_argument("--budget", default="", help="of one model (default: the zoo's)")
    parser.add_argument("--out", type=Path, default=Path("build", "footprint"))
    parser.add_argument(
        "--keep", type=Path, help="put the reports there, with a line each in its history.jsonl"
    )
    parser.add_argument("--command", default="", help="default: .venv/bin/edgecompress here")
    return parser


def main() -> int:
    """Do it; the exit code."""
    args = parser().parse_args()
    for made in (args.out / name for name in MADE):
        if made.is_dir():
            shutil.rmtree(made)
        made.unlink(missing_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    text = args.out / "comment.md"
    command = shlex.split(args.command) or [str(COMMAND) if COMMAND.exists() else "edgecompress"]
    try:
        status = _compared(args, command, text)
        if args.keep is not None and status == 0:
            _keep(args.keep, command, sorted((args.out / "head").glob("*.json")))
    except Failed as failed:
        print(f"footprint: {failed}", file=sys.stderr)
        if not text.is_file():  # `diff` writes why by itself
            text.write_text(skipped(str(failed)), encoding="utf-8")
        status = failed.status
    _tell(text, VERDICTS.get(status, "failed"))
    return status


def _compared(args: argparse.Namespace, command: list[str], text: Path) -> int:
    """Measure, and write what changed; 0, or 3 over budget."""
    head = args.out / "head"
    head.mkdir()
    for model in args.models:
        run = Path(model)
        if not (run / "report.json").is_file():
            run = args.out / "runs" / Path(model).stem
            _run(command, "compress", model, "--out", str(run))
        _run(command, "report", str(run), "--board", args.boards)
        name = json.loads((run / "report.json").read_text(encoding="utf-8"))["name"]
        if (head / f"{name}.json").exists():
            raise Failed(f"two models have the name {name}", 2)
        for suffix in (".json", ".html"):
            shutil.copyfile(run / f"report{suffix}", head / f"{name}{suffix}")
    base = args.out / "base" if args.base_commit else Path(args.base)
    if args.base_commit:
        _unpack(args.base_commit, args.base, base)
    budget = ["--budget", args.budget] if args.budget else []
    written = ("--markdown", text, "--json", args.out / "diff.json", "--csv", args.out / "diff.csv")
    return _run(command, "diff", str(base), str(head), *budget, *map(str, written))


def _keep(folder: Path, command: list[str], reports: Sequence[Path]) -> None:
    """Put the reports into `folder`, and their figures into its history."""
    folder.mkdir(exist_ok=True)
    kept = [str(shutil.copyfile(report, folder / report.name)) for report in reports]
    _run(command, "history", str(folder / HISTORY), "--add", *kept)


def _unpack(commit: str, folder: str, out: Path) -> None:
    """The files of `folder` in `commit`, in `out`; none where the commit does not have it."""
    out.mkdir()
    named = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options"]
    if subprocess.run([*named, f"{commit}^{{commit}}"], capture_output=True).returncode:
        raise Failed(f"the base's commit {commit} is not in this checkout", 1)
    top = subprocess.run([*named, f"{commit}:./{folder}"], capture_output=True, text=True)
    if top.returncode:
        return
    packed = subprocess.run(["git", "archive", top.stdout.strip()], capture_output=True)
    if packed.returncode:
        raise Failed(f"{folder} is no folder in the base's commit {commit}", 1)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None and "/" not in member.name:
                (out / member.name).write_bytes(content.read())


def _run(command: list[str], *arguments: str) -> int:
    """Run a command; its status, 0 or 3. Failed for any other."""
    shown = shlex.join(["edgecompress", *arguments])
    print(f"$ {shown}", flush=True)
    done = subprocess.run(
        [*command, *arguments], stderr=subprocess.PIPE, text=True, errors="replace"
    )
    sys.stderr.write(done.stderr)
    if done.returncode not in VERDICTS:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Failed(f"`{shown}` failed with status {done.returncode} ({said})", done.returncode)
    return done.returncode


def _tell(text: Path, verdict: str) -> None:
    """Hand the comment to GitHub Actions, where this runs there."""
    said = text.read_text(encoding="utf-8")
    for variable, added in (
        ("GITHUB_STEP_SUMMARY", said),
        ("GITHUB_OUTPUT", f"verdict={verdict}\ncomment={text}\n"),
    ):
        if os.environ.get(variable):
            with Path(os.environ[variable]).open("a", encoding="utf-8") as file:
                file.write(added)
    if os.environ.get("GITHUB_EVENT_PATH"):
        event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
        if "pull_request" in event:
            folder = text.parent / "comment"
            folder.mkdir()
            shutil.copyfile(text, folder / text.name)
            (folder / "number").write_text(f"{event['pull_request']['number']}\n")


if __name__ == "__main__":
    sys.exit(main())
