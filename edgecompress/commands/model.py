"""Look at models: inspect, models, pull, train."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from edgecompress.commands.options import FILE, JSON, MODEL, SEED, Commands
from edgecompress.terminal import Terminal


def inspect(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress.summary import summarise

    summary = summarise(args.file, channels=args.channels)
    if args.json:
        terminal.say(json.dumps(asdict(summary), indent=1))
        return
    terminal.say(f"{summary.name}: {summary.format}, input {summary.input}, {summary.size:,} bytes")
    terminal.table(summary.HEADINGS, summary.rows(), words=3)
    for line in summary.notes():
        terminal.say(line)


def models(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import zoo

    rows = [(name, zoo.describe(name), str(zoo.folder(name))) for name in zoo.names()]
    if args.json:
        terminal.say(
            json.dumps([dict(zip(("name", "what", "folder"), row, strict=True)) for row in rows])
        )
        return
    terminal.table(("model", "what", "folder"), rows, words=3)


def pull(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import zoo

    with terminal.bars() as progress:
        zoo.pull(args.model, progress=progress)
    terminal.say(f"{args.model}: every file is there and has its pinned SHA-256")


def train(args: argparse.Namespace, terminal: Terminal) -> None:
    from edgecompress import zoo

    with terminal.bars() as progress:
        zoo.train(args.model, seed=args.seed or 0, progress=progress)
    terminal.say(f"{args.model}: trained; the weights are in {zoo.folder(args.model)}")


COMMANDS: Commands = {
    "inspect": (
        inspect,
        "what is in a model",
        (
            ("file", {"metavar": "FILE", **FILE}),
            ("--channels", {"action": "store_true", "help": "list the coupled channels too"}),
            JSON,
        ),
    ),
    "models": (models, "list the zoo", (JSON,)),
    "pull": (pull, "fetch a zoo model's public files by pinned SHA-256", (MODEL,)),
    "train": (train, "train a zoo model afresh", (MODEL, SEED)),
}
