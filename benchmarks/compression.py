"""Structured pruning without fine-tuning, then int8: what each ratio costs and what it saves."""

from __future__ import annotations

import sys

from edgecompress import pipeline
from edgecompress.pipeline import planning
from edgecompress.report import Report

MODELS = ("mlperf_kws", "mlperf_ic", "kws")
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.5)
HEADINGS = (
    "ratio",
    "parameters",
    "MACs",
    "`.tflite` bytes",
    "arena bytes",
    "float",
    "pruned float",
    "int8",
    "TFLM = reference",
)


def count(value: int | None) -> str:
    """Digits in groups of three; nothing where it was not measured."""
    return "" if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """A fraction in percent; nothing where it was not measured."""
    return "" if value is None else f"{value:.2%}"


def row(ratio: float, report: Report) -> tuple[str, ...]:
    """One line of the table."""
    size, test, proof = report.size, report.accuracy[0], report.proof
    equal = "" if proof is None else f"{proof.exact:,} of {proof.elements:,}"
    pruned = test.float if test.pruned is None else test.pruned
    return (
        f"{ratio:g}",
        *(count(change.after) for change in (size.params, size.macs, size.tflite, size.arena)),
        *(percent(value) for value in (test.float, pruned, test.compressed)),
        equal,
    )


def main() -> None:
    """One table a model."""
    print("## Channel pruning without fine-tuning, int8\n")
    print(
        "`edgecompress compress MODEL --ratio R` (score l2, global, nothing retrained): what really"
        " results. The last column counts output values on which the TFLM interpreter and the"
        " reference kernels agree to the last bit."
    )
    for model in MODELS:
        plan = planning.plan(model)
        test = plan.splits[0]
        print(f"\n### {model}\n\n{test.name}: {len(test):,} samples. {test.source}.\n")
        print("| " + " | ".join(HEADINGS) + " |")
        print("|" + "---|" * len(HEADINGS))
        for ratio in RATIOS:
            changed = planning.changed(plan, {"prune": {"ratio": ratio, "round_to": 1}})
            report = pipeline.run(changed).report
            print("| " + " | ".join(row(ratio, report)) + " |", flush=True)
            print(f"{model} {ratio:g} done", file=sys.stderr)


if __name__ == "__main__":
    main()
