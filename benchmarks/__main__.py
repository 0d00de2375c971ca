"""Regenerate the pages of docs/, or the sections named: `python -m benchmarks split`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INTRO = """# {title}

Each section is the output of one script, `python -m benchmarks.<section>`; `make bench` makes
the page anew. {models}
"""
PAGES = {
    "benchmarks.md": (
        "Benchmarks",
        "The MLPerf Tiny models come from `EC_DATA_DIR` or `edgecompress pull`.",
        ("aot", "kernels", "compression", "split"),
    ),
    "benchmarks-data-free.md": (
        "Compression without data",
        "The models and their data come from `EC_DATA_DIR`.",
        ("datafree",),
    ),
    "benchmarks-training.md": (
        "Compression that trains",
        "The models and their data come from `EC_DATA_DIR`. What was trained stays in"
        " `build/benchmarks`: a page that was interrupted goes on.",
        ("train_kws", "train_ic", "train_mnist"),
    ),
}
"""Title, source of the models and sections of each page."""


def section(name: str) -> str:
    """What the script prints, between markers; its progress goes to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return f"<!-- {name} -->\n{done.stdout.decode().strip()}\n<!-- /{name} -->\n"


def update(page: Path, head: str, sections: Sequence[str], wanted: set[str]) -> None:
    """Replace the sections that are wanted, keep the others."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    blocks = []
    for name in sections:
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if name in wanted:
            blocks.append(section(name))
        elif start in old:
            blocks.append(start + old.split(start)[1].split(end)[0] + end + "\n")
    page.write_text("\n".join([head, *blocks]), encoding="utf-8")


def main() -> None:
    """Update the pages that have a section which was asked for."""
    known = {name for *_, sections in PAGES.values() for name in sections}
    wanted = set(sys.argv[1:]) or known
    if wanted - known:
        unknown = sorted(wanted - known)[0]
        sys.exit(f"benchmarks: no section {unknown}; there are {', '.join(sorted(known))}")
    for file, (title, models, sections) in PAGES.items():
        if wanted & set(sections):
            head = INTRO.format(title=title, models=models)
            update(ROOT / "docs" / file, head, sections, wanted)


if __name__ == "__main__":
    main()
