"""PlatformIO as a tool: what it is given, what it is not asked in vain, what its failures mean."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import platformio as core
import pytest

from edgecompress import boards, cli
from edgecompress.backends import firmware_folder
from edgecompress.building import platformio
from edgecompress.errors import ToolError
from tests.conftest import need

HOME = firmware_folder()
INI = """
[env:real]
platform = some@1.2.3
board = x

[base]
platform = symlink://${PROJECT_DIR}/platform

[env:local]
extends = base
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as firmware/, of an installed edgecompress."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "firmware"
    folder.mkdir()
    (folder / platformio.CONFIG).write_text(INI)
    return folder


def test_packages_are_the_checkouts_own_or_the_users(project: Path) -> None:
    assert platformio.packages(HOME) == HOME.resolve() / ".pio" / "core"
    place = platformio.packages(project)
    assert place.parent == project.parent / "cache" / "edgecompress"
    (project.parent / "pyproject.toml").touch()
    assert platformio.packages(project) == project / ".pio" / "core"


def test_options_are_found_through_extends(project: Path) -> None:
    assert platformio.option(project, "real", "platform") == "some@1.2.3"
    local = platformio.option(project, "local", "platform")
    assert local == "symlink://${PROJECT_DIR}/platform"
    assert platformio.option(project, "real", "nothing") is None
    assert platformio.option(project, "no board", "platform") is None


def test_a_platform_is_installed_in_its_version_alone(project: Path) -> None:
    assert not platformio.installed(project, "real")
    folder = platformio.packages(project) / "platforms" / "some"
    folder.mkdir(parents=True)
    (folder / "platform.json").write_text('{"name": "some", "version": "1.2.2"}')
    assert not platformio.installed(project, "real")
    (folder / "platform.json").write_text("{")
    assert not platformio.installed(project, "real")
    newer = folder.with_name("some@1.2.3")
    newer.mkdir()
    (newer / "platform.json").write_text('{"name": "some", "version": "1.2.3"}')
    assert platformio.installed(project, "real")
    platformio.need(project, "real")  # and nobody is asked


def _hosts(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    monkeypatch.setattr(core, "__registry_mirror_hosts__", list(hosts))


def test_a_registry_out_of_reach_is_told_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hosts(monkeypatch, "one.invalid", "two.invalid")
    with pytest.raises(ToolError) as raised:
        platformio.need(project, "real")
    told = str(raised.value)
    assert told.startswith("real: some@1.2.3, its compiler and its framework come from PlatformIO")
    assert "cannot be reached (" in told and "--board qemu_m4" in told and "HTTPS_PROXY" in told


def test_a_registry_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _hosts(monkeypatch, "one.invalid")
    asked, over = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        asked.set()
        over.wait(10)
        raise OSError("too late")

    monkeypatch.setattr(platformio.urllib.request, "urlopen", hang)
    started = time.monotonic()
    assert platformio.registry(timeout=0.2) == "no answer in 0.2 s"
    assert asked.is_set() and time.monotonic() - started < 5
    over.set()


def test_one_mirror_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    _hosts(monkeypatch, "bad.invalid", "good.invalid", "odd.invalid")

    def answer(url: str, **_: object) -> object:
        if "bad" in url:
            raise OSError("unreachable")
        if "odd" in url:
            raise ValueError("what?")
        raise platformio.urllib.error.HTTPError(url, 404, "", None, None)  # type: ignore[arg-type]

    monkeypatch.setattr(platformio.urllib.request, "urlopen", answer)
    assert platformio.registry() is None
    _hosts(monkeypatch, "bad.invalid", "odd.invalid")
    assert platformio.registry() in ("unreachable", "what?")


def test_a_real_board_without_the_registry_leaves_everything_as_it_was(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if platformio.installed(HOME, "nano33"):
        pytest.skip("the packages of nano33 are installed here")
    model = data_dir / "models" / "original" / "kws_ref_model.tflite"
    _hosts(monkeypatch, "one.invalid")
    out = tmp_path / "out"
    out.mkdir()
    (out / "kept").touch()
    started = time.monotonic()
    command = ["flash", str(model), "--board", "nano33", "--out", str(out)]
    assert cli.main(command) == 1
    assert time.monotonic() - started < 20
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("edgecompress: nano33: nordicnrf52@") and "--board qemu_m4" in error
    assert [file.name for file in out.iterdir()] == ["kept"]


SAYINGS = {
    "Platform Manager: Installing some @ 1.2.3\nHTTPClientError: \n": "registry does not answer",
    "UnknownPackageError: Could not find the package with 'a/b @ 9'": "no such package",
    "could not open port /dev/ttyACM0: [Errno 13] Permission denied: '/dev/ttyACM0'": "dialout",
    "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS": "udev rules",
    "[Errno 16] could not open port /dev/ttyACM0: Device or resource busy": "serial monitor",
    "A fatal error occurred: Failed to connect to ESP32-S3: No serial data received.": "hold BOOT",
    "No device found on /dev/ttyACM0\n*** [upload] Error 1": "press its reset button",
    "Error: Please specify `upload_port` for environment or use": "press its reset button",
    "Error: Couldn't find a board on the selected port. Check": "press its reset button",
    "Error: init mode failed (unable to connect to the target)": "no debug probe",
    "Error: open failed\nin procedure 'program'": "no debug probe",
    "Error: The program size (1000000 bytes) is greater than maximum allowed (983040 bytes)": (
        "too large for the board"
    ),
}


@pytest.mark.parametrize("said", SAYINGS)
def test_what_a_failure_means_comes_first(said: str) -> None:
    told = str(platformio.Failed("pio run -e x -t upload", 1, f"Processing x\n{said}\n"))
    assert told.startswith("pio run -e x -t upload: exit status 1: ")
    assert SAYINGS[said] in told.split("; ")[0]
    assert said.splitlines()[0].split(";")[0].strip() in told or "Error" in told


def test_an_unknown_failure_shows_the_last_lines() -> None:
    log = "\n".join(["Compiling x.o", *map(str, range(30)), "oops\n==== [FAILED] ===="])
    told = str(platformio.Failed("pio run", 3, log))
    assert told.startswith("pio run: exit status 3: 11; 12;") and "oops" in told
    assert "Compiling" not in told
    errors = "\n".join(f"main.c:{n}: error: wrong {n}" for n in range(9))
    told = str(platformio.Failed("pio run", 1, f"noise\n{errors}\nmore noise"))
    assert "noise" not in told and "wrong 0" in told and "wrong 5" not in told


def test_a_run_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("cc")
    slow = tmp_path / "cc"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = {f"PLATFORMIO_{key}_DIR": str(tmp_path / key) for key in ("BUILD", "WORKSPACE")}
    started = time.monotonic()
    with pytest.raises(ToolError, match="pio run -e host: not done after 4 seconds"):
        platformio.run(HOME, "host", settings=settings, timeout=4)
    assert time.monotonic() - started < 30


def test_every_line_is_heard_and_the_users_settings_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("cc")
    monkeypatch.setenv("PLATFORMIO_BUILD_FLAGS", "-DNONSENSE -Wnonsense=3")
    monkeypatch.setenv("PLATFORMIO_BUILD_UNFLAGS", "-Os -ffunction-sections")
    monkeypatch.setenv("PLATFORMIO_PACKAGES_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("EC_IMAGE", str(tmp_path / "nothing"))
    monkeypatch.setenv("SCONSFLAGS", "--nonsense")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    settings = {f"PLATFORMIO_{key}_DIR": str(tmp_path / key) for key in ("BUILD", "WORKSPACE")}
    heard: list[str] = []
    log = platformio.run(HOME, "host", settings=settings, timeout=120, heard=heard.append)
    assert [line.rstrip() for line in log.splitlines()[1:]] == heard
    assert any(line.startswith("Compiling ") for line in heard)
    assert (tmp_path / "BUILD" / "host" / "firmware.elf").is_file()


def test_scons_is_the_one_of_this_environment(project: Path) -> None:
    platformio.provide_scons(project)
    folder = platformio.packages(project) / "packages" / "tool-scons"
    about = json.loads((folder / ".piopm").read_text())
    assert about["spec"]["owner"] == "platformio" and about["version"].startswith("4.")
    before = (folder / "scons.py").stat().st_ino
    platformio.provide_scons(project)
    assert (folder / "scons.py").stat().st_ino == before
    (folder / ".piokeep").write_text("platformio 0.1, scons 0.1\n")
    platformio.provide_scons(project)
    assert (folder / "scons.py").stat().st_ino != before


def test_every_board_has_its_environment() -> None:
    for board in boards.names():
        assert platformio.option(HOME, board, "platform"), board
