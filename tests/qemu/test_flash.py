"""Flashing: PlatformIO builds, starts QEMU as if it were a board, and a serial port leads to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecompress import cli, loading, zoo
from edgecompress.backends import firmware_folder
from edgecompress.building import firmware, platformio
from edgecompress.building.firmware import Image
from edgecompress.errors import ConfigError, DeviceError, ToolError
from edgecompress.evaluation import evaluate
from edgecompress.measuring import counting, link, measurement, running
from edgecompress.measuring.results import Run
from tests.conftest import need, nightly
from tests.qemu.test_measurement import MODEL, ROWS, built

HOME = firmware_folder()


@pytest.fixture(scope="module")
def m4(tmp_path_factory: pytest.TempPathFactory) -> Image:
    for what in ("cc", "arm-gcc", "qemu"):
        need(what)
    return built("qemu_m4", tmp_path_factory.mktemp("m4"))


@pytest.fixture(scope="module")
def run(m4: Image) -> Run:
    return measurement.measure(m4, inputs=ROWS, runs=2)


def emulators(image: Image) -> set[int]:
    """The processes of QEMU that run `image`."""
    command = ["ps", "-ww", "-eo", "pid=,stat=,args="]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = (line.split(None, 2) for line in found.splitlines())
    return {
        int(pid)
        for pid, state, args in lines
        if str(image.elf)[1:] in args and "qemu" in args and not state.startswith("Z")
    }


def none_left(image: Image) -> None:
    """Fail where an emulator goes on running `image`."""
    until(lambda: not emulators(image))


@pytest.mark.parametrize("board", ["qemu_m4", *nightly([], ["qemu_m3", "qemu_m55"])])
def test_a_flashed_board_measures_as_a_child_process_does(
    board: str, m4: Image, run: Run, tmp_path: Path
) -> None:
    if board == "qemu_m4":
        image, plain = m4, run
    else:
        image = built(board, tmp_path)
        plain = measurement.measure(image, inputs=ROWS, runs=2)
    seen: list[tuple[str, int, int]] = []
    flashed = measurement.measure(
        image, inputs=ROWS, runs=2, flash=True, progress=lambda *step: seen.append(step)
    )
    assert ("uploading", 0, 1) in seen
    assert any(label == "uploading" and 0 < done == total for label, done, total in seen)
    assert flashed.table() == plain.table()
    assert flashed.source == "counting plugin of QEMU, exact"
    for got, want in zip(flashed.outputs, plain.outputs, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_command_updates_the_report_and_keeps_the_sources(
    tmp_path: Path, m4: Image, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "small.tflite"
    model.write_bytes(MODEL)
    command = ["flash", str(model), "--board", "qemu_m4", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    out = capfd.readouterr().out
    assert "small, backend aot, on qemu_m4" in out
    for heading in ("flash bytes", "RAM bytes", "stack bytes", "per inference", "outputs equal"):
        assert heading in out
    assert cli.main([*command, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    written = json.loads((tmp_path / "out" / "qemu_m4-aot" / measurement.FILE).read_text())
    assert {**written, "accuracy": None} == told
    kept = HOME / "generated"
    assert (kept / "model.c").read_text() == (
        tmp_path / "out" / "qemu_m4-aot" / "generated" / "model.c"
    ).read_text()

    # PlatformIO by itself, in firmware/, builds the same model and starts it.
    settings = {f"PLATFORMIO_{key}_DIR": str(tmp_path / key) for key in ("BUILD", "WORKSPACE")}
    log = platformio.run(HOME, "qemu_m4", targets=("upload",), settings=settings, timeout=120)
    terminal = tmp_path / "WORKSPACE" / "qemu_m4.port"
    process = int(terminal.with_name("qemu_m4.port.pid").read_text())
    try:
        assert f"its serial port is {os.readlink(terminal)}" in log
        with link.connect(str(terminal), board="it", baud=9600, timeout=20) as port:
            port.send(b"@hi *5ac9d8d8\n")
            assert port.receive(20) is not None
    finally:
        os.kill(process, signal.SIGKILL)


def test_the_accuracy_on_the_board_is_the_hosts(
    data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for what in ("cc", "arm-gcc", "qemu"):
        need(what)
    model = data_dir / "models" / "original" / "kws_ref_model.tflite"
    split = zoo.dataset("mlperf_kws").test
    count = nightly(60, len(split))
    rows = split.rows(np.arange(count) * len(split) // count)
    data = tmp_path / "data.npz"
    np.savez(data, x=rows.x, y=rows.y, x_calibration=rows.x[:8], y_calibration=rows.y[:8])
    command = ["measure", str(model), "--board", "qemu_m4", "--data", str(data), "--json"]
    assert cli.main([*command, "--samples", str(count), "--out", str(tmp_path / "out")]) == 0
    judged = json.loads(capfd.readouterr().out)["accuracy"]
    on_host = evaluate(loading.load_flatbuffer(model), rows, metric="top1")
    assert judged == {"metric": "top1", "samples": count, "value": on_host.value}


def test_an_emulator_that_dies_is_told_and_nothing_is_left(m4: Image) -> None:
    with pytest.raises(DeviceError, match="qemu_m4.* gone"):
        with running.flashed(m4, timeout=2) as line:
            (process,) = emulators(m4)
            os.kill(process, signal.SIGKILL)
            for _ in range(100):
                line.send(b"@hi *5ac9d8d8\n")
                line.receive(0.05)
    none_left(m4)


def test_an_emulator_that_does_not_end_is_ended(m4: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "APPEAR", 0.2)
    with pytest.raises(DeviceError, match="qemu_m4: still running 0.2 s after it was asked"):
        with running.flashed(m4, timeout=20):
            assert len(emulators(m4)) == 1
    none_left(m4)


def test_what_interrupts_leaves_no_emulator(m4: Image) -> None:
    with pytest.raises(KeyboardInterrupt):
        with running.flashed(m4, timeout=20):
            raise KeyboardInterrupt
    none_left(m4)


def test_a_port_is_only_for_real_boards(m4: Image) -> None:
    with pytest.raises(ConfigError, match="--port /dev/x: qemu_m4 is on no serial port"):
        measurement.measure(m4, port="/dev/x")


def test_an_upload_that_fails_says_why(
    m4: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("sh", m4.board.compiler):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.path.dirname(sys.executable)}")
    monkeypatch.setattr(counting, "obstacle", lambda qemu: "nothing counts here")
    with pytest.raises(ToolError, match="status 1: Error: qemu-system-arm: not found on PATH"):
        measurement.measure(m4, flash=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_a_build_at_once(number: signal.Signals, tmp_path: Path) -> None:
    need("cc")
    mark = f"31.{os.getpid()}"  # seconds that only this compiler sleeps
    slow = tmp_path / "cc"
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nsleep {mark}\n")
    slow.chmod(0o755)
    (tmp_path / "small.tflite").write_bytes(MODEL)
    command = [sys.executable, "-m", "edgecompress.cli", "build", "small.tflite", "--board", "host"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as build:
        until(lambda: (tmp_path / "begun").exists())
        build.send_signal(number)
        said = build.communicate(timeout=20)[1]
    assert build.returncode == 130 and "earlier output is untouched" in said
    until(lambda: subprocess.run(["pgrep", "-f", f"sleep {mark}"]).returncode == 1)
    assert not list(tmp_path.glob("build/small/*"))


def until(done: Callable[[], bool]) -> None:
    """Wait for what is to happen within half a minute."""
    for _ in range(600):
        if done():
            return
        time.sleep(0.05)
    assert done()


def test_images_can_be_built_side_by_side(tmp_path: Path) -> None:
    need("arm-gcc")
    images: list[Image] = []
    builds = [
        threading.Thread(target=lambda n=n: images.append(built("qemu_m4", tmp_path / str(n))))
        for n in range(2)
    ]
    for each in builds:
        each.start()
    for each in builds:
        each.join(120)
    first, second = images
    assert first.elf.read_bytes() == second.elf.read_bytes()
    assert first.flags == second.flags and "-O2" in first.flags and "-Os" not in first.flags
    assert firmware.FLAGS not in {file.name for file in first.elf.parent.iterdir()}
