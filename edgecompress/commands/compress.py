"""The whole run, or what it would do: compress; the recipes that it knows: recipe."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgecompress.commands import board
from edgecompress.commands.options import (
    BUDGET,
    CODE,
    DATA,
    FEATURES,
    FILE,
    JSON,
    OPTIMIZED,
    SEED,
    Commands,
)
from edgecompress.commands.report import show
from edgecompress.errors import ConfigError
from edgecompress.terminal import Terminal
from edgecompress.vocabulary import CALIBRATIONS, METRICS, MODES, REPAIRS, SCORE_NAMES, Scope

if TYPE_CHECKING:
    from edgecompress.pipeline.forecast import Forecast

CHECKPOINTS = "checkpoints"
"""In the run directory: what training has reached."""
KEPT = (
    "what was trained is kept, but for the epoch it was in: the same command goes on there, with"
    " --finish it takes the best weights so far"
)
"""What an interrupted command says of its training."""
SHARE = "may remain: a share (0.5) or a count (above 1)"


TARGETED = {
    "macs": "of the multiply-accumulates",
    "params": "of the parameters",
    "flash": "of the flash that the ahead-of-time C takes",
    "ram": "of its arena's bytes",
    "instructions": "of its estimated instructions on a Cortex-M4",
}


SIZES = {
    "macs": "multiply-accumulates",
    "params": "parameters",
    "weights": "weights, bytes",
    "tflite": ".tflite, bytes",
    "arena": "arena (aot), bytes",
    "flash": "flash (aot), bytes",
    "instructions": "instructions (aot), estimated",
}
"""The rows of a forecast."""


CHANGES = {
    "prune": ("ratio", *TARGETED, "score", "scope", "repair"),
    "quantize": ("mode", "calibration", "weight_bits", "weight_flash", "input_range"),
    "train": ("epochs",),
}
"""The options of compress that take the place of a recipe's keys, by section."""


def compress(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import boards, pipeline
    from edgecompress.pipeline.forecast import forecast
    from edgecompress.report import Report

    if args.board:
        boards.load(args.board)
    if args.restart and args.finish:
        raise ConfigError("--restart and --finish: one throws away what the other takes; give one")
    with terminal.bars() as progress:
        plan = pipeline.plan(
            args.model,
            data=args.data,
            metric=args.metric,
            features=args.features,
            augment=args.augment,
            recipe=args.recipe,
            budget=args.budget,
            changes=_changes(args),
            seed=args.seed,
            name=args.name,
            optimize=args.optimize,
            progress=progress,
        )
        if args.dry_run:
            foreseen = forecast(plan, progress=progress)
        else:
            folder = args.out or Path("build") / plan.name
            try:
                result = pipeline.run(
                    plan,
                    checkpoints=folder / CHECKPOINTS,
                    restart=args.restart,
                    finish=args.finish,
                    progress=progress,
                )
            except KeyboardInterrupt:
                if plan.recipe.trains:
                    terminal.note(KEPT)
                raise
    if args.dry_run:
        _foretell(foreseen, args, terminal)
        return
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


def _foretell(foreseen: Forecast, args: argparse.Namespace, terminal: Terminal) -> None:
    """The plan and the predicted sizes, as tables or as JSON."""
    if args.json:
        terminal.say(json.dumps(foreseen.to_json(), indent=1))
        return
    rows = [
        (row.stage, row.what, *(_number(n) for n in (row.epochs, row.steps, row.rows)))
        for row in foreseen.stages
    ]
    terminal.table(("stage", "what", "epochs", "steps", "rows"), rows, words=2)
    terminal.say()
    before, after = vars(foreseen.given), vars(foreseen.predicted)
    sizes = [
        (name, _number(before[key]), _number(after[key]), _share(before[key], after[key]))
        for key, name in SIZES.items()
    ]
    terminal.table((f"{foreseen.name}, predicted", "as given", "compressed", "share"), sizes)
    for reason in foreseen.unsupported:
        terminal.say(f"The ahead-of-time C cannot run it: {reason}")
    terminal.say("A dry run: nothing was trained or written.")


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _share(before: int | None, after: int | None) -> str:
    return f"{after / before:.0%}" if before and after is not None else "-"


def recipe(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.recipe import RECIPES, find
    from edgecompress.recipe.grammar import WORDS

    if args.name is not None:
        terminal.say(find(args.name).to_toml().rstrip())
        return
    if args.json:
        words = [{"word": word.example, "means": word.means} for word in WORDS]
        ours = sorted(file.stem for file in RECIPES.glob("*.toml"))
        terminal.say(json.dumps({"files": ours, "words": words}, indent=1))
        return
    terminal.say(
        f"Recipes that come along: {', '.join(sorted(f.stem for f in RECIPES.glob('*.toml')))}."
    )
    terminal.say("Others are spelled, as prune50-finetune-qat; the words, in this order:")
    terminal.table(
        ("word", "what it does"), [(word.example, word.means) for word in WORDS], words=2
    )


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


RECIPE = (
    "recipe.toml; data-free, distilled or few-samples; or its stages, as prune50-finetune-qat (see"
    " recipe)"
)


COMMANDS: Commands = {
    "compress": (
        compress,
        "prune, quantise, convert, prove; print one table",
        (
            ("model", {"metavar": "MODEL", **FILE}),
            ("--data", {"help": DATA}),
            ("--features", {"metavar": CODE, "help": FEATURES}),
            ("--augment", {"metavar": CODE, "help": "changes batches to train on at random"}),
            ("--name", {"help": "the model's name in the report and in C (default: the file's)"}),
            ("--metric", {"choices": METRICS, "help": "default: from the data"}),
            ("--out", {"type": Path, "help": "run directory (default build/MODEL)"}),
            ("--recipe", {"help": RECIPE}),
            (
                "--epochs",
                {"type": int, "help": "of each stage that trains (default: the recipe's)"},
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
                "--weight-flash",
                {"type": float, "help": "of the weights, 8 or 4 bits by layer: a share or bytes"},
            ),
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
            (
                "--dry-run",
                {"action": "store_true", "help": "check all, print the plan and predicted sizes"},
            ),
            ("--restart", {"action": "store_true", "help": "train anew, not on from a checkpoint"}),
            (
                "--finish",
                {"action": "store_true", "help": "take what an interrupted training has reached"},
            ),
            JSON,
        ),
    ),
    "recipe": (
        recipe,
        "print a recipe as a file to start from, or the words that name one",
        (("name", {"metavar": "RECIPE", "nargs": "?", "help": RECIPE}), JSON),
    ),
}
