"""A report with everything in it, small enough to check by hand, for tests of what reads one."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgecompress.artifact import Step
from edgecompress.backends.aot.density import Row, Side
from edgecompress.report import (
    AccuracyRow,
    BoardRow,
    Change,
    MapBlock,
    MapStep,
    MemoryMap,
    OperatorRow,
    Proof,
    Report,
    Size,
    Verdict,
)
from edgecompress.report.boards import Cost, OpCost, Outputs, Timing
from edgecompress.report.image import Attribution, FlashParts, Part, RamParts, SymbolRow

PROOF = Proof("reference 1", "subject 2", 64, 192, 192, 0, 0, 0)


def operator(layer: str, kind: str, **changes: Any) -> OperatorRow:
    """An operator of a layer with 100 weights, a fifth of them 0."""
    row = OperatorRow(
        layer=layer,
        kind=kind,
        shape=(1, 5, 5, 4),
        macs=2500,
        params=104,
        weights=100,
        zeros=20,
        weight_bytes=116,
        bits=8,
        activation_bytes=100,
        live_bytes=150,
        sqnr_db=30.5,
        max_abs=0.1,
    )
    return dataclasses.replace(row, **changes)


def symbol(name: str, part: Part, flash: int, ram: int = 0, *operators: int) -> SymbolRow:
    """A symbol of model.o where it is the model's, else of app.o."""
    model = part in ("weights", "constants", "kernels", "arena")
    return SymbolRow(name, "model.o" if model else "app.o", part, flash, ram, operators)


SYMBOLS = (
    symbol("w_0", "weights", 1000, 0, 0),
    symbol("w_1", "weights", 3000, 0, 2),
    symbol("c_0", "constants", 200, 0, 0),
    symbol("c_1", "constants", 101, 0, 0, 2),
    symbol("ec_conv_s8", "kernels", 700, 0, 0),
    symbol("ec_fully_connected_s8", "kernels", 301, 0, 1, 2),
    symbol("ec_model_invoke", "kernels", 98),
    symbol("main", "application", 400),
    symbol("memcpy", "libc", 150),
    symbol("reset", "runtime", 40),
    symbol("(padding)", "runtime", 10),
    symbol("state", "data", 16, 16),
    symbol("ec_arena", "arena", 0, 500),
    symbol(".stack", "stack", 0, 1024),
    symbol("buffer", "data", 0, 60),
)
IMAGE = Attribution(
    flash=FlashParts(
        weights=4000, constants=301, kernels=1099, runtime=50, application=400, libc=150, data=16
    ),
    ram=RamParts(arena=500, stack=1024, data=16, copied=0, bss=60),
    symbols=SYMBOLS,
    flash_limit=65536,
    ram_limit=16384,
)
EMULATED = BoardRow(
    board="qemu_m4",
    backend="aot",
    flash=IMAGE.flash.total,
    ram=IMAGE.ram.total,
    arena=500,
    stack=320,
    timing=Timing("instructions", "counting plugin", 9000, 0, 3, None, None, 11000, 12500),
    outputs=Outputs(192, 0, 0),
    cost=Cost(5500, 520, "qemu_m4"),
    image=IMAGE,
    profile=(OpCost("ec_conv_s8", 6000), OpCost("", 100), OpCost("ec_fully_connected_s8", 2800)),
)
REAL = BoardRow(
    board="nano33",
    backend="aot",
    flash=90000,
    ram=46000,
    arena=500,
    stack=None,
    timing=Timing("cycles", "DWT", 12000, 40, 3, 64_000_000, "flash with wait states", None, None),
    outputs=Outputs(190, 1, 1),
    cost=Cost(5600, 520, "nano33"),
)
UNBUILT = BoardRow(
    board="pico",
    backend="aot",
    flash=None,
    ram=None,
    arena=500,
    stack=None,
    timing=None,
    outputs=None,
    cost=Cost(6100, 520, "qemu_m0"),
    note="not built: its platform cannot be had here",
)
MEMORY = MemoryMap(
    name="tiny",
    arena=500,
    lower_bound=480,
    steps=(
        MapStep("conv", "CONV_2D", 480),
        MapStep("pool", "AVERAGE_POOL_2D", 300),
        MapStep("classes", "FULLY_CONNECTED", 120),
    ),
    blocks=(
        MapBlock("x", 0, 250, 0, 0, None),
        MapBlock("conv:0", 100, 400, 0, 1, "x"),
        MapBlock("pool:0", 0, 100, 1, 2, None),
        MapBlock("classes:0", 200, 3, 2, 2, None),
    ),
)
REPORT = Report(
    name="tiny",
    sha256="ab" * 32,
    tools={"python": "3.11.7", "edgecompress": "0.1.0", "tflite-micro": "0.1"},
    commit="c0ffee",
    steps=(
        Step("prune_structured", {"ratio": 0.5}, {"macs": {"before": 9000, "after": 4000}}),
        Step("quantize", {"mode": "int8"}, {"tflite_bytes": 8000}),
    ),
    size=Size(
        Change(400, 208),
        Change(9000, 4500),
        Change(20000, 8000),
        Change(4000, 2000),
        Change(1500, 500),
    ),
    accuracy=(
        AccuracyRow(
            "test", "held out", "top1", 100, 0.95, 0.94, 0.93, 0.9, 10,
            confusion=((31, 2, 1), (1, 32, 0), (3, 0, 30)), trained=0.945,
        ),
        AccuracyRow("noisy", "with noise", "top1", 50, 0.85, 0.84, 0.8, None, None),
    ),
    proof=PROOF,
    operators=(
        operator("conv", "CONV_2D"),
        operator("pool", "AVERAGE_POOL_2D", macs=0, params=0, weights=0, zeros=0, weight_bytes=0,
                 bits=None, shape=(1, 4), activation_bytes=4, sqnr_db=None, max_abs=None),
        operator("classes", "FULLY_CONNECTED", macs=2000, shape=(1, 3), activation_bytes=3,
                 zeros=0, bits=4),
    ),
    unsupported=(),
    aot_unsupported=(),
    density=(
        Row(0, "conv", "CONV_2D", 180, 120, 9,
            Side("ec_conv_sparse_s8", 300, 9000), Side("ec_conv_pairs_s8", 500, 12000)),
    ),
    gzip=640,
    budget=(
        Verdict("size.tflite", None, 8192.0, 0.0, 8000.0),
        Verdict("accuracy.min", 0.9, None, 0.0, 0.93),
    ),
    boards=(REAL, UNBUILT, EMULATED),
    memory=MEMORY,
    labels=("yes", "no", "other"),
)  # fmt: skip


def changed(report: Report = REPORT, **changes: Any) -> Report:
    """`report` with other values."""
    return dataclasses.replace(report, **changes)
