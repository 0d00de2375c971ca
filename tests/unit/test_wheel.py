"""An installed package: the wheel holds all that the commands need, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.qemu.test_measurement import MODEL

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_the_firmware_and_the_zoo(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    made = {".pio", "generated", "__pycache__"}
    for file in (*ROOT.glob("firmware/**/*.*"), *ROOT.glob("models/*/*.py")):
        if made.isdisjoint(file.relative_to(ROOT).parts):
            assert (installed / "edgecompress" / file.relative_to(ROOT)).is_file(), file
    assert not made & {path.name for path in (installed / "edgecompress" / "firmware").iterdir()}
    pages = ROOT.glob("edgecompress/report/html/**/*")
    for file in (*ROOT.glob("edgecompress/recipe/ours/*.toml"), *pages):
        if file.is_file() and made.isdisjoint(file.parts):
            assert (installed / file.relative_to(ROOT)).is_file(), file
    shown = _run(installed, tmp_path, "assert cli.main(['boards']) == 0")
    assert "qemu_m55" in shown
    assert shown.splitlines()[-1] == str(installed / "edgecompress" / "firmware")
    if shutil.which("cc") is not None:
        (tmp_path / "net.tflite").write_bytes(MODEL)
        _run(
            installed, tmp_path, "assert cli.main(['flash', 'net.tflite', '--board', 'host']) == 0"
        )
        assert (tmp_path / "build" / "net" / "host-aot" / "firmware.elf").is_file()
        (cache,) = (tmp_path / "cache" / "edgecompress").iterdir()
        assert (cache / "project" / "platformio.ini").is_symlink()
        assert not made & {file.name for file in (installed / "edgecompress/firmware").iterdir()}


def _run(installed: Path, folder: Path, code: str) -> str:
    """What the code prints, and where the installed package has its firmware."""
    lines = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    lines += f"from edgecompress import backends, cli\n{code}\nprint(backends.firmware_folder())"
    return subprocess.run(
        [sys.executable, "-c", lines],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
