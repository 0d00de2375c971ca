"""What the stages did to each group and layer, as tables for Markdown: (title, note, rows)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgecompress.artifact import Step

GROUPS = ("group", "channels", "removed", "ratio", "score", "stays because")
REPAIRED = ("layer", "reads", "removed", "predicted error", "measured error", "guard")
ROUNDED = ("layer", "weight", "bits", "rounding", "predicted error")


class Section(NamedTuple):
    """One table under a title; `rows` are as wide as `headings`."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def sections(steps: Sequence[Step]) -> Iterator[Section]:
    """The tables that the steps have rows for, in the order of the steps."""
    for step in steps:
        for make in _SECTIONS.get(step.stage, ()):
            section = make(step)
            if section.rows:
                yield section


def _groups(step: Step) -> Section:
    groups = step.effect.get("plan", {}).get("groups", [])
    return Section(
        "Channels by group",
        "Layers in a group lose their channels together.",
        GROUPS,
        [
            (
                group["name"],
                str(group["size"]),
                str(len(group["drop"])),
                f"{len(group['drop']) / group['size']:.0%}",
                str(step.params.get("score", "")) if group["protected"] is None else "",
                group["protected"] or "",
            )
            for group in groups
        ],
    )


def _repaired(step: Step) -> Section:
    return Section(
        f"Repair by layer ({step.params.get('repair')})",
        "Errors are those of the layer's outputs, squared, relative to their variance: predicted"
        " from the statistics the repair goes by, measured on samples where there are any. The"
        " guard compares the statistics with what the next BatchNormalization knows: how far the"
        " logarithms of the deviations are spread, and by how much the means had to move.",
        REPAIRED,
        [
            (
                row["layer"],
                f"{row['channels']} channels",
                f"{row['removed']} ({', '.join(row['groups'])})",
                _error(row["predicted"]),
                _error(row["measured"]),
                _guard(row),
            )
            for row in step.effect.get("repair", [])
        ],
    )


def _rounded(step: Step) -> Section:
    return Section(
        "Weights by layer",
        "The error that rounding is predicted to make in the layer's outputs, squared, relative to"
        " their variance.",
        ROUNDED,
        [
            (row["layer"], row["weight"], str(row["bits"]), row["rule"], _error(row["error"]))
            for row in step.effect.get("layers", [])
        ],
    )


_SECTIONS = {"prune_structured": (_groups, _repaired), "quantize": (_rounded,)}


def _guard(row: Mapping[str, Any]) -> str:
    """The verdict, with the reason or else with the numbers behind it."""
    numbers = [
        text.format(row[key])
        for key, text in (("spread", "spread {:.2f}"), ("shift", "means moved {:.0%}"))
        if row[key] is not None
    ]
    why = row["reason"] or ", ".join(numbers)
    return f"{row['verdict']}: {why}" if why else str(row["verdict"])


def _error(value: Any) -> str:
    return "not known" if value is None else f"{value:.3g}"
