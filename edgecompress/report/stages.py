"""What the stages did to each group and layer, and what it gains, as tables of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecompress.artifact import Step

if TYPE_CHECKING:
    from edgecompress.report.report import Report

GROUPS = ("group", "channels", "removed", "ratio", "score", "stays because")
REPAIRED = ("layer", "reads", "removed", "predicted error", "measured error", "guard")
ROUNDED = ("layer", "weight", "bits", "rounding", "predicted error")
TRAINED = ("stage", "epochs", "best after", "validation rows", "metric", "before", "after")
DENSE = (
    "layer",
    "zeros",
    "distinct",
    "kernel",
    "flash",
    "flash, dense",
    "instructions",
    "instructions, dense",
)
PROMISED = ("stage", "layer", "what", "promised", "found")


class Section(NamedTuple):
    """One table under a title; `rows` are as wide as `headings`."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def sections(report: Report) -> Iterator[Section]:
    """The tables that `report` has rows for: those of its steps, in their order (of a stage that
    was run several times, of the last), then training and density."""
    steps = report.steps
    last = {step.stage: step for step in steps}
    made = [make(step) for step in last.values() for make in _SECTIONS.get(step.stage, ())]
    yield from (section for section in [*made, _trained(steps), _density(report)] if section.rows)


def _groups(step: Step) -> Section:
    groups = step.effect.get("plan", {}).get("groups", [])
    return Section(
        "Channels by group",
        "Layers in a group lose their channels together.",
        GROUPS,
        [
            (
                group["name"],
                str(size),
                str(removed),
                f"{removed / size:.0%}",
                str(step.params.get("score", "")) if group["protected"] is None else "",
                group["protected"] or "",
            )
            for group in groups
            for size in [step.params.get("sizes", {}).get(group["name"], group["size"])]
            for removed in [size - group["size"] + len(group["drop"])]
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


def _promised(step: Step) -> Section:
    return Section(
        "Promises",
        "What the stages promise of the weights, counted in the converted file.",
        PROMISED,
        [
            (row["stage"], row["layer"], row["what"], _bound(row), str(row["found"]))
            for row in step.effect["promises"]
        ],
    )


def _bound(row: Mapping[str, Any]) -> str:
    return f"at {'least' if row['at_least'] else 'most'} {row['promised']}"


def _trained(steps: Sequence[Step]) -> Section:
    found = [(step.stage, step.effect["training"]) for step in steps if "training" in step.effect]
    return Section(
        "Training",
        "The validation says when to stop; none of its rows is among those that accuracies are of.",
        TRAINED,
        [
            (
                stage,
                str(row["epochs"]),
                str(row["best_epoch"]),
                f"{row['rows']:,}",
                row["metric"],
                f"{row['before']:.4g}",
                f"{row['after']:.4g}",
            )
            for stage, row in found
        ],
    )


def _density(report: Report) -> Section:
    size = "" if report.gzip is None else f"{report.gzip:,} bytes"
    return Section(
        "Dense against sparse",
        "Layers as the ahead-of-time C runs them, in bytes of their constants and instructions"
        " estimated for a Cortex-M4, beside the best choice among dense kernels."
        f" Gzipped, all weights are a file of {size}, which no microcontroller runs from.",
        DENSE,
        [
            (
                row.layer or row.kind,
                f"{row.zeros / row.weights:.0%}",
                str(row.distinct),
                row.chosen.kernel or "in the call of another layer",
                *(_number(n) for n in (row.chosen.flash, row.dense.flash)),
                *(_number(n) for n in (row.chosen.instructions, row.dense.instructions)),
            )
            for row in report.density
        ],
    )


def _number(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


_SECTIONS = {
    "prune_structured": (_groups, _repaired),
    "quantize": (_rounded,),
    "promises": (_promised,),
}


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
