"""What a build says, without where and when it was said: the same build, the same text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

_ABSOLUTE = re.compile(r"(?<![\w.$}/-])/(?:[^\s()/:,;\"']+/)+(?=[^\s()/:,;\"']+)")
"""The folders of an absolute path."""
_COMPILING = re.compile(r"(Compiling|Archiving|Indexing) ")
_FETCHED = re.compile(r"[A-Z]\w+ Manager: |(Downloading|Unpacking)\b")
_END = re.compile(r"=+ \[\w+\] Took [\d.]+ seconds =+$")


def paths(text: str, places: Mapping[Path, str]) -> str:
    """`text` with each of the folders in `places` called as it says ("": its files by their paths
    in it), and any other file by its name alone.

    Of two folders one of which is in the other, the inner one counts.
    """
    for folder, name in sorted(places.items(), key=lambda each: -len(str(each[0]))):
        inside = f"{name}/" if name else ""
        text = text.replace(f"{folder}/", inside).replace(str(folder), name or ".")
    return _ABSOLUTE.sub("", text)


def log(text: str) -> str:
    """What PlatformIO said of a build: not what it fetched first, nor how long it took; files that
    are compiled side by side are in the order of their names."""
    command, *said = text.splitlines()
    starts = [number for number, line in enumerate(said) if line.startswith("Processing ")]
    ends = [number for number, line in enumerate(said) if _END.match(line)]
    kept = said[starts[0] if starts else 0 : ends[0] if ends else None]
    lines = [command]
    told = (line for line in kept if not _FETCHED.match(line))
    for compiling, group in groupby(told, lambda line: bool(_COMPILING.match(line))):
        block = list(group)
        lines += sorted(block) if compiling else block
    return "\n".join(lines) + "\n"
