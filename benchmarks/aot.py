"""Firmware of the ahead-of-time backend against TFLite Micro with CMSIS-NN, on one Cortex-M4."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgecompress import zoo
from edgecompress.artifact import Artifact
from edgecompress.building import deployment
from edgecompress.building.firmware import Image
from edgecompress.errors import EdgeCompressError
from edgecompress.measuring import measurement
from edgecompress.measuring.results import Run
from edgecompress.vocabulary import Optimize

BOARD = "qemu_m4"
ZOO = "kws"
TFLM = Path(__file__).with_name("tflm.toml")
TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")

Table = dict[str, Any]
Row = tuple[str, ...]


def measured(name: str, model: bytes, *, optimize: Optimize = "balanced") -> tuple[Image, Run]:
    """`model` built for the board and measured there, on rows over the whole input range."""
    artifact = Artifact(name, tflite=model)
    with tempfile.TemporaryDirectory() as folder:
        image = deployment.build(artifact, board=BOARD, optimize=optimize, out=Path(folder))
        return image, measurement.measure(image, runs=2)


def given(name: str, known: Table) -> bytes:
    """The `.tflite` that the figures in `known` are of."""
    file = zoo.data_file(known["file"])
    if file is None:
        raise EdgeCompressError(f"{name}: no {known['file']} under EC_DATA_DIR; set it")
    model = file.read_bytes()
    if hashlib.sha256(model).hexdigest() != known["sha256"]:
        raise EdgeCompressError(f"{file}: not the file that {TFLM.name} has figures of")
    return model


def compressed(name: str) -> bytes:
    """The `.tflite` that the recipe of a zoo model gives."""
    from edgecompress import pipeline

    return pipeline.run(pipeline.plan(name)).artifact.need_tflite("benchmark")


def amount(value: int | None, other: int | None = None) -> str:
    """Digits in groups of three, and the ratio to `other` where there is one."""
    if value is None:
        return ""
    return f"{value:,}" if not other else f"{value:,} ({value / other:.2f} x)"


def span(ends: tuple[int, int] | None) -> str:
    """A range of cycles."""
    return "" if ends is None else f"{ends[0]:,} to {ends[1]:,}"


def totals(image: Image, run: Run, known: Table) -> list[Row]:
    """What, ours, TFLM's; one row a figure."""
    footprint, bits = image.footprint, run.bits
    assert footprint is not None
    flash, ram = footprint.flash, footprint.ram
    parts = ", ".join(f"{part} {size:,}" for part, size in dataclasses.asdict(flash).items())
    cost = image.cost
    cycles = known.get("cycles")
    equal = "not compared" if bits is None else f"{bits.exact:,} of {bits.elements:,}"
    rows: list[tuple[str, str]] = [
        ("instructions per inference", amount(run.per_inference, known.get("instructions"))),
        ("estimated cycles", span(run.cycles)),
        ("flash bytes, whole image", amount(flash.total, known.get("flash"))),
        ("of it", parts),
        ("RAM bytes, whole image", amount(ram.total, known.get("ram"))),
        ("of it the arena", amount(run.arena, known.get("arena"))),
        ("stack bytes", amount(run.stack, known.get("stack"))),
        (
            "flash, RAM bytes that the model adds",
            "" if cost is None else f"{cost.flash:,}, {cost.ram:,}",
        ),
        ("outputs with TFLM's bits", equal),
    ]
    theirs = {
        "instructions per inference": amount(known.get("instructions")),
        "estimated cycles": "" if cycles is None else span((cycles[0], cycles[1])),
        "flash bytes, whole image": amount(known.get("flash")),
        "RAM bytes, whole image": amount(known.get("ram")),
        "of it the arena": amount(known.get("arena")),
        "stack bytes": amount(known.get("stack")),
    }
    return [(what, ours, theirs.get(what, "")) for what, ours in rows]


def operators(run: Run, known: Table) -> list[Row]:
    """One row an operator; TFLM's columns are empty where the model is not known to it."""
    theirs = known.get("ops") or [{}] * len(run.ops)
    kinds = [op.get("kind", ours.kind) for op, ours in zip(theirs, run.ops, strict=True)]
    if kinds != [op.kind for op in run.ops]:
        raise EdgeCompressError(f"{run.name}: {TFLM.name} has other operators than the model")
    rows: list[Row] = []
    for ours, other in zip(run.ops, theirs, strict=True):
        per_mac = "" if ours.per_mac is None else f"{ours.per_mac:.2f}"
        cmsis, plain = other.get("instructions"), other.get("reference")
        rows.append(
            (
                str(ours.op),
                ours.kind,
                amount(ours.macs or None),
                amount(ours.amount),
                per_mac,
                span(ours.cycles),
                amount(cmsis),
                f"{cmsis / ours.macs:.2f}" if cmsis and ours.macs else "",
                amount(plain),
            )
        )
    return rows


def show(headings: Row, rows: list[Row]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(headings) + " |")
    print("|" + "---|" * len(headings))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main() -> None:
    """Two tables a model: the whole of it, and by operator."""
    known = tomllib.loads(TFLM.read_text(encoding="utf-8"))
    versions = [
        subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
        for tool in TOOLS
    ]
    print("## Ahead-of-time C on a Cortex-M4\n")
    print(
        f"Board `{BOARD}` under QEMU: instructions are exact, cycles are an estimate (a model with"
        " zero wait states), neither is a latency. TFLM is TFLite Micro with CMSIS-NN on the same"
        f" emulated machine (`benchmarks/{TFLM.name}` says how its figures were made), on the same"
        f" `.tflite`, as published; `{ZOO}` is the zoo's model after its recipe, which TFLM was not"
        " measured on. Flash and RAM are those of the whole image, without the stack. Ratios are"
        " ours / TFLM's. Made with"
        f" {' and '.join(done.stdout.splitlines()[0] for done in versions)}."
    )
    models = {name: given(name, table) for name, table in known.items()}
    for name, model in {**models, ZOO: compressed(ZOO)}.items():
        image, run = measured(name, model)
        theirs = known.get(name, {})
        print(f"\n### {name}\n\n{sum(op.macs for op in run.ops):,} MACs per inference.\n")
        show(("", "edgecompress aot", "TFLM + CMSIS-NN"), totals(image, run, theirs))
        silicon = theirs.get("x_cube_ai_cycles")
        if silicon is not None:
            print(f"\nPublished for X-CUBE-AI 9 on silicon: {silicon / 1e6:.2f} M cycles.")
        print()
        headings = (
            *("op", "kind", "MACs", "instructions", "per MAC", "est. cycles"),
            *("CMSIS-NN instructions", "per MAC", "TFLM reference kernels"),
        )
        show(headings, operators(run, theirs))
        print(f"{name} done", file=sys.stderr)


if __name__ == "__main__":
    main()
