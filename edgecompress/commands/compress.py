"""The whole run: compress."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, get_args

from edgecompress.commands import board
from edgecompress.commands.options import BUDGET, FILE, JSON, OPTIMIZED, SEED, Commands
from edgecompress.commands.report import show
from edgecompress.terminal import Terminal
from edgecompress.vocabulary import CALIBRATIONS, METRICS, MODES, REPAIRS, SCORE_NAMES, Scope

SHARE = "may remain: a share (0.5) or a count (above 1)"


TARGETED = {
    "macs": "of the multiply-accumulates",
    "params": "of the parameters",
    "flash": "of the flash that the ahead-of-time C takes",
    "ram": "of its arena's bytes",
    "instructions": "of its estimated instructions on a Cortex-M4",
}


CHANGES = {
    "prune": ("ratio", *TARGETED, "score", "scope", "repair"),
    "quantize": ("mode", "calibration", "weight_bits", "input_range"),
}
"""The options of compress that take the place of a recipe's keys, by section."""


def compress(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import boards, pipeline
    from edgecompress.report import Report

    if args.board:
        boards.load(args.board)
    with terminal.bars() as progress:
        plan = pipeline.plan(
            args.model,
            data=args.data,
            metric=args.metric,
            recipe=args.recipe,
            budget=args.budget,
            changes=_changes(args),
            seed=args.seed,
            name=args.name,
            optimize=args.optimize,
            progress=progress,
        )
        result = pipeline.run(plan, progress=progress)
    folder = args.out or Path("build") / plan.name
    result.save(folder)
    if not args.json:
        terminal.note(f"written to {folder}{os.sep}")
    if args.board:
        args.backend, args.runs, args.out, args.port = "aot", 1, folder, None
        run = board.taken(args, terminal, result.artifact, folder, inputs=None)
        report = Report.read(folder)
        show(report, args, terminal)
        run.check()
    else:
        report = result.report
        show(report, args, terminal)
    report.check()


def _changes(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    options = {
        section: {key: getattr(args, key) for key in keys} for section, keys in CHANGES.items()
    }
    return {
        section: {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if value is not None
        }
        for section, values in options.items()
    }


COMMANDS: Commands = {
    "compress": (
        compress,
        "prune, quantise, convert, prove; print one table",
        (
            ("model", {"metavar": "MODEL", **FILE}),
            (
                "--data",
                {"type": Path, "help": ".npz with x, y and perhaps x_calibration, y_calibration"},
            ),
            ("--name", {"help": "the model's name in the report and in C (default: the file's)"}),
            ("--metric", {"choices": METRICS, "help": "default: from the data"}),
            ("--out", {"type": Path, "help": "run directory (default build/MODEL)"}),
            (
                "--recipe",
                {"help": "recipe.toml, or data-free, distilled or few-samples"},
            ),
            BUDGET,
            ("--ratio", {"type": float, "help": "fraction of the channels to remove"}),
            *(
                (f"--{name} --target-{name}", {"type": float, "help": f"{what}, {SHARE}"})
                for name, what in TARGETED.items()
            ),
            ("--score", {"choices": SCORE_NAMES, "help": "how channels are ranked"}),
            ("--scope", {"choices": get_args(Scope), "help": "how much of each group goes"}),
            ("--repair", {"choices": REPAIRS, "help": "of the layers that lose channels"}),
            ("--mode", {"choices": MODES, "help": "of the conversion (default int8)"}),
            (
                "--calibration",
                {"choices": CALIBRATIONS, "help": "where activation ranges are from"},
            ),
            ("--weight-bits", {"type": int, "help": "bits of a weight, 2 to 8 (default 8)"}),
            (
                "--input-range",
                {
                    "type": float,
                    "nargs": 2,
                    "metavar": ("LOW", "HIGH"),
                    "help": "of the inputs (default: estimated, where there are no samples)",
                },
            ),
            ("--board", {"help": "build and measure on this board too (see boards)"}),
            OPTIMIZED,
            SEED,
            JSON,
        ),
    ),
}
