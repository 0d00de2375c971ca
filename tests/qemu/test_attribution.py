"""Images taken apart: sums to the byte, operators, images too large for their board."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import boards, cli, survey
from edgecompress.artifact import Artifact
from edgecompress.building import deployment, firmware, platformio
from edgecompress.building.firmware import Image, TooLarge
from edgecompress.commands import board
from edgecompress.errors import ConfigError, DeviceError, ToolError
from edgecompress.measuring import measurement
from edgecompress.report import OperatorRow, Report
from edgecompress.tflite import Op, Program, read
from edgecompress.tflite.account import accounts
from tests.conftest import need
from tests.reports import changed
from tests.tflite_builder import activation, constant, conv_net, options
from tests.tflite_builder import build as tflite

EMULATED = ("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55")
NET = tflite(conv_net())


def dense(inputs: int, outputs: int) -> bytes:
    """A FULLY_CONNECTED of so many weights, which do not compress."""
    random = np.random.default_rng(0)
    matrix = constant(
        "m/fc/w", random.integers(-127, 128, (outputs, inputs)), "int8", scales=(0.1,)
    )
    tensors = (activation("x", 1, inputs), matrix, activation("m/fc/y", 1, outputs))
    op = Op("FULLY_CONNECTED", (0, 1, -1), (2,), options("FULLY_CONNECTED"))
    return bytes(tflite(Program(tensors, (op,), (0,), (2,))))


def wide(size: int) -> bytes:
    """A MAX_POOL_2D of a map of size x size x 4, whose input alone is that many bytes."""
    tensors = (
        activation("x", 1, size, size, 4),
        activation("m/pool/y", 1, size // 2, size // 2, 4),
    )
    window = {"stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
    op = Op("MAX_POOL_2D", (0,), (1,), options("MAX_POOL_2D", **window))
    return bytes(tflite(Program(tensors, (op,), (0,), (1,))))


def size(elf: Path) -> tuple[int, int, int]:
    """Text, data and bss, as the binutils count them."""
    done = subprocess.run(
        ["arm-none-eabi-size", str(elf)], capture_output=True, text=True, check=True
    )
    text, data, bss = done.stdout.splitlines()[1].split()[:3]
    return int(text), int(data), int(bss)


@pytest.mark.parametrize("name", EMULATED)
def test_every_byte_is_for_something(name: str, tmp_path: Path) -> None:
    need("arm-gcc")
    image = deployment.build(Artifact("net", tflite=NET), board=name, out=tmp_path)
    found = image.footprint
    assert found is not None
    text, data, bss = size(image.elf)
    assert found.flash.total == sum(one.flash for one in found.symbols) == text + data
    assert found.ram.total + found.ram.stack == sum(one.ram for one in found.symbols) == data + bss
    program = read(NET)
    each = found.operators(len(program.ops))
    kinds = [op.kind for op in program.ops]
    for kind, one in zip(kinds, each, strict=True):
        assert (one.total > 0) == (kind != "RESHAPE"), kind
    weights = {kind: one.weights for kind, one in zip(kinds, each, strict=True)}
    assert weights["CONV_2D"] >= 72 and weights["FULLY_CONNECTED"] >= 108
    assert sum(weights.values()) == found.flash.weights
    # What no operator has is the model's own frame: names, tables, the function that calls them.
    rest = found.flash.kernels - sum(one.kernels for one in each)
    named = {one.name: one for one in found.symbols if one.file.startswith("generated/model.")}
    assert not named["ec_model_invoke"].operators
    assert 0 < rest <= sum(one.flash for one in named.values() if one.part == "kernels")


@pytest.mark.parametrize(
    ("model", "memory", "most"),
    [
        (dense(800, 800), "flash", "weights of fc 640,000 bytes"),
        (wide(400), "RAM", "the arena 640,000 bytes, the stack 4,096 bytes"),
    ],
    ids=["flash", "RAM"],
)
def test_an_image_too_large_is_measured_all_the_same(
    model: bytes, memory: str, most: str, tmp_path: Path
) -> None:
    need("arm-gcc")
    artifact = Artifact("net", tflite=model)
    image = deployment.build(artifact, board="qemu_m55", out=tmp_path, oversize=True)
    found, limit = image.footprint, 512 << 10
    assert found is not None and image.cost is not None
    text, data, bss = size(image.elf)
    assert (found.flash.total, found.ram.total + found.ram.stack) == (text + data, data + bss)
    over = {"flash": (text + data - limit, 0), "RAM": (0, data + bss - limit)}[memory]
    assert found.over == over and sum(over) > 0
    assert image.too_large == f"it is larger than {memory} by {sum(over):,} bytes"
    assert f"most of it: {most}" in image.excess
    table = json.loads((image.elf.parent / "image.json").read_text())
    assert table["too_large"] == image.too_large
    # The linker counts what it leaves between sections too.
    log = (image.elf.parent / "log.txt").read_text()
    told = re.search(rf"region `{memory.upper()}' overflowed by (\d+) bytes", log)
    assert told is not None and sum(over) <= int(told[1]) < sum(over) + 32


def test_a_link_that_fails_for_more_than_memory_is_no_matter_of_size(tmp_path: Path) -> None:
    need("arm-gcc")
    sources = deployment.sources(Artifact("net", tflite=wide(400)), optimize="balanced")
    ready = "static uint8_t ready = 0;"
    assert ready in sources["model.c"]
    text = sources["model.c"].replace(ready, f"{ready}\nvoid nowhere(void);")
    text = text.replace("    ready = 1;", "    nowhere();\n    ready = 1;")
    with pytest.raises(platformio.Failed, match="undefined reference to `nowhere'"):
        firmware.build(
            {**sources, "model.c": text},
            board="qemu_m55", backend="aot", out=tmp_path, name="net", oversize=True,
        )  # fmt: skip


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """A run of NET with a report, as compress leaves it."""
    folder = tmp_path / "runs" / "net"
    artifact = Artifact("net", tflite=NET)
    artifact.save(folder)
    rows = [
        OperatorRow(**dataclasses.asdict(one), sqnr_db=None, max_abs=None)
        for one in accounts(read(NET))
    ]
    changed(
        name="net",
        sha256=hashlib.sha256(NET).hexdigest(),
        operators=tuple(rows),
        boards=(),
        budget=(),
        memory=None,
    ).save(folder)
    return folder


def out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformio, "installed", lambda firmware, environment: False)
    monkeypatch.setattr(platformio, "registry", lambda: "no answer in 8 s")


def test_report_answers_for_every_board_that_it_can(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for what in ("arm-gcc", "qemu"):
        need(what)
    out_of_reach(monkeypatch)
    command = ["report", str(run_directory), "--board", "nano33,qemu_m4,pico"]
    assert cli.main(command) == 0
    out, err = capfd.readouterr()
    assert f"in a browser: {run_directory / 'report.html'}" in err
    rows = {row.board: row for row in Report.read(run_directory).boards}
    m4, nano33, pico = rows["qemu_m4"], rows["nano33"], rows["pico"]
    image = m4.image
    assert image is not None and m4.cost is not None and m4.timing is not None
    assert len(m4.profile) == len(read(NET).ops)
    assert m4.profile[2].amount < min(m4.profile[i].amount for i in (0, 1, 3))  # RESHAPE
    assert abs(sum(cost.amount for cost in m4.profile) - m4.timing.per_inference) < 100
    assert m4.compiler is not None and m4.compiler.startswith("arm-none-eabi-gcc ")
    assert nano33.cost == m4.cost and nano33.flash is None
    assert pico.cost is not None and pico.cost.built_for == "qemu_m0"
    left = 983040 - m4.cost.flash, 262144 - m4.cost.ram
    assert nano33.note is not None and nano33.note.startswith(
        f"fits unless the board's own software takes more than {left[0]:,} bytes of flash or"
        f" {left[1]:,} bytes of RAM (what the model adds on qemu_m4); not built here: nordicnrf52"
    )
    assert "(see `edgecompress doctor --board nano33`)" in nano33.note
    assert f"nano33: {nano33.note}" in out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert lines["qemu_m4"][:4] == ["qemu_m4", "yes", f"{m4.flash:,}", "4,194,304"]
    assert lines["nano33"][1] == "perhaps" and lines["nano33"][-2:] == ["not", "measured"]
    assert lines["application"] == ["application", f"{image.flash.application:,}"]
    conv = image.operators(5)[0]
    sizes = (conv.weights, conv.constants, conv.kernels, conv.total, m4.profile[0].amount)
    assert lines["conv"] == ["conv", "CONV_2D", *(f"{one:,}" for one in sizes)]
    stored = json.loads((run_directory / "qemu_m4-aot" / measurement.FILE).read_text())
    assert stored["flash"] == m4.flash and "image" not in stored
    # What was built for a stand-in leaves nothing behind.
    folders = {path.name for path in run_directory.iterdir() if path.is_dir()}
    assert folders == {"qemu_m4-aot"}

    # Again without boards: the same report, rendered anew.
    before = (run_directory / "report.json").read_bytes()
    (run_directory / "report.html").unlink()
    assert cli.main(["report", str(run_directory)]) == 0
    assert (run_directory / "report.json").read_bytes() == before
    assert (run_directory / "report.html").is_file()
    capfd.readouterr()
    assert cli.main([*command[:2], "--json"]) == 0
    assert Report.from_json(capfd.readouterr().out) == Report.read(run_directory)


def test_a_board_that_is_too_small_stops_no_other(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for what in ("arm-gcc", "qemu"):
        need(what)
    out_of_reach(monkeypatch)
    load = boards.load

    def small(name: str) -> boards.Board:
        changes: dict[str, Any] = {
            "nano33": {"flash_bytes": 1000, "ram_bytes": 300},
            "qemu_m3": {"ram_bytes": 4200},
        }.get(name, {})
        return dataclasses.replace(load(name), **changes)

    monkeypatch.setattr(boards, "load", small)
    command = ["report", str(run_directory), "--board", "qemu_m3,nano33,qemu_m4"]
    assert cli.main(command) == 0
    out = capfd.readouterr().out
    rows = {row.board: row for row in Report.read(run_directory).boards}
    assert rows["qemu_m4"].timing is not None
    m3 = rows["qemu_m3"]
    assert m3.image is not None and m3.image.over[0] == 0 and m3.image.over[1] > 300
    assert m3.note is not None and m3.timing is None
    assert m3.note.startswith(f"does not fit: it is larger than RAM by {m3.image.over[1]:,} bytes")
    assert "most of it: the stack 4,096 bytes, the arena " in m3.note
    note = rows["nano33"].note
    assert note is not None and note.startswith(
        "does not fit: what the model adds on qemu_m4 alone is larger than flash by "
    )
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert [lines[name][1] for name in ("qemu_m3", "nano33", "qemu_m4")] == ["no", "no", "yes"]


def test_nothing_known_of_any_board_is_an_error(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out_of_reach(monkeypatch)
    monkeypatch.setenv("PATH", str(run_directory))  # no compiler either
    before = (run_directory / "report.json").read_bytes()
    assert cli.main(["report", str(run_directory), "--board", "pico,qemu_m4"]) == 1
    assert "pico: raspberrypi@" in capfd.readouterr().err
    assert (run_directory / "report.json").read_bytes() == before
    assert cli.main(["report", str(run_directory), "--board", "pico,nowhere"]) == 2
    assert "board 'nowhere': no such board" in capfd.readouterr().err


def test_a_board_that_fails_is_an_error_after_the_report(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need("arm-gcc")

    def fails(image: Image, **_: Any) -> None:
        raise DeviceError(f"{image.board.id}: it is gone")

    monkeypatch.setattr(measurement, "measure", fails)
    assert cli.main(["report", str(run_directory), "--board", "qemu_m4"]) == 1
    out, err = capfd.readouterr()
    (row,) = Report.read(run_directory).boards
    assert (row.timing, row.note) == (None, "built, not measured: qemu_m4: it is gone")
    assert row.flash is not None and f"{row.flash:,}" in out
    assert "edgecompress: qemu_m4: it is gone" in err


def test_a_board_without_an_answer_is_an_error_after_the_others(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need("cc")
    image = survey.Question.image

    def broken(self: survey.Question, name: boards.Board, out: Path) -> Image:
        if name.id == "qemu_m0":
            raise ToolError("qemu_m0: the compiler stumbled")
        return image(self, name, out)

    monkeypatch.setattr(survey.Question, "image", broken)
    monkeypatch.setattr(firmware, "need", lambda name: None)
    assert cli.main(["report", str(run_directory), "--board", "qemu_m0,host"]) == 1
    out, err = capfd.readouterr()
    (row,) = Report.read(run_directory).boards
    assert row.key == "host" and row.timing is not None
    assert "host " in out and "edgecompress: qemu_m0: the compiler stumbled" in err


def test_another_choice_of_kernels_is_told_and_takes_the_place(
    run_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    need("arm-gcc")
    need("qemu")
    command = ["report", str(run_directory), "--board", "qemu_m4"]
    assert cli.main(command) == 0
    assert "--optimize" not in capfd.readouterr().out
    assert cli.main([*command, "--optimize", "ram"]) == 0
    told = "qemu_m4: its kernels were chosen for ram (--optimize ram)"
    assert told in capfd.readouterr().out
    (row,) = Report.read(run_directory).boards
    assert row.optimize == "ram"
    assert told in (run_directory / "report.md").read_text()
    table = json.loads((run_directory / "qemu_m4-aot" / "image.json").read_text())
    assert table["optimize"] == "ram"


def test_a_report_alone_cannot_be_built(
    run_directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "base.json"
    (run_directory / "report.json").rename(alone)
    assert cli.main(["report", str(alone)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.json", "runs"]
    assert cli.main(["report", str(alone), "--board", "qemu_m4"]) == 2
    assert "base.json: --board needs the model; give its run directory" in capfd.readouterr().err


def test_a_zoo_model_is_compressed_where_there_is_no_run(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = run_directory.parent.parent
    monkeypatch.chdir(place)
    models = []

    def compress(model: str, terminal: Any) -> None:
        models.append(model)
        (place / "build").mkdir()
        run_directory.rename(place / "build" / model)

    monkeypatch.setattr(board, "compressed", compress)
    assert cli.main(["report", "nothing"]) == 1
    assert "nothing/report.json: no such report" in capfd.readouterr().err
    assert [cli.main(["report", "kws"]) for _ in range(2)] == [0, 0]
    assert models == ["kws"]


def test_an_image_that_cannot_be_linked_at_all_is_an_answer_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def image(self: survey.Question, name: boards.Board, out: Path) -> Image:
        refused = Image(out, name, "aot", "net", None, None, None)
        raise TooLarge(refused, "does not fit: it is larger than RAM by 9 bytes")

    monkeypatch.setattr(survey.Question, "image", image)
    monkeypatch.setattr(firmware, "need", lambda name: None)
    (answer,) = survey.ask(survey.Question(Artifact("net", tflite=NET), Path()), ["nano33"])
    assert answer.error is None and answer.row is not None and not answer.row.found
    assert answer.row.note == "does not fit: it is larger than RAM by 9 bytes"


def test_boards_asked_for_twice_are_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def image(self: survey.Question, board: Any, out: Path) -> Image:
        seen.append(board.id)
        raise ToolError("no compiler")

    monkeypatch.setattr(survey.Question, "image", image)
    monkeypatch.setattr(firmware, "need", lambda board: None)
    question = survey.Question(Artifact("net", tflite=NET), Path())
    with pytest.raises(ToolError, match="no compiler"):
        survey.ask(question, ["qemu_m4", "host", "qemu_m4"])
    assert seen == ["qemu_m4", "host"]
    with pytest.raises(ConfigError, match="no such board"):
        survey.ask(question, ["elsewhere"])
