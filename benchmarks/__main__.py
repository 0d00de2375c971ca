"""Regenerate docs/benchmarks.md, or the sections named: `python -m benchmarks split`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
SECTIONS = ("aot", "kernels", "compression", "split")
INTRO = """# Benchmarks

Each section is the output of one script, `python -m benchmarks.<section>`; `make bench` makes
the page anew. The MLPerf Tiny models come from `EC_DATA_DIR` or `edgecompress pull`.
"""


def section(name: str) -> str:
    """What the script prints, between markers; its progress goes to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return f"<!-- {name} -->\n{done.stdout.decode().strip()}\n<!-- /{name} -->\n"


def main() -> None:
    """Replace the sections that were asked for, keep the others."""
    wanted = sys.argv[1:] or list(SECTIONS)
    unknown = sorted(set(wanted) - set(SECTIONS))
    if unknown:
        sys.exit(f"benchmarks: no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    blocks = []
    for name in SECTIONS:
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if name in wanted:
            blocks.append(section(name))
        elif start in old:
            blocks.append(start + old.split(start)[1].split(end)[0] + end + "\n")
    PAGE.write_text("\n".join([INTRO, *blocks]), encoding="utf-8")


if __name__ == "__main__":
    main()
