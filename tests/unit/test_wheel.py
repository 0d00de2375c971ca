"""An installed package: the wheel holds all that the commands need, without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_the_firmware_and_the_zoo(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    for file in (*ROOT.glob("firmware/**/*.*"), *ROOT.glob("models/*/*.py")):
        assert (installed / "edgecompress" / file.relative_to(ROOT)).is_file(), file
    for file in ROOT.glob("edgecompress/recipes/*.toml"):
        assert (installed / file.relative_to(ROOT)).is_file(), file
    code = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    code += "from edgecompress import backends, boards, cli\n"
    code += "assert cli.main(['boards']) == 0\nprint(backends.firmware_folder())"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "qemu_m55" in shown
    assert shown.splitlines()[-1] == str(installed / "edgecompress" / "firmware")
