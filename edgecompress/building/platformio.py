"""PlatformIO at work on firmware/: builds an environment, puts an image on its board.

PlatformIO runs as a program of its own. Its folder of packages is the project's, because a shared
one would take the local platform of whichever project came first; the build tool that it would
fetch from its registry, SCons, is the one that pip installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from edgecompress.errors import ToolError
from edgecompress.files import write_folder

CONFIG = "platformio.ini"
REACH = 8.0
"""Seconds for PlatformIO's registry to answer."""

_QUIET = {
    "COLUMNS": "80",
    "LC_ALL": "C",
    "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
    "PLATFORMIO_NO_ANSI": "true",
    "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
}
_OTHERS = re.compile(
    "PLATFORMIO_(?!SETTING_|AUTH_TOKEN)|SCONSFLAGS$|EC_(IMAGE|EMULATOR|OVERSIZE|TFLM)_?"
)
"""What the user may have set for other projects, or a run of ours left."""
_HERE = ("symlink://", "file://")
_START = "import sys\nfrom SCons.Script import main\nsys.exit(main())\n"
_LEFT_OUT = ("__pycache__", "docbook")
"""Of SCons: what is made anew, and style sheets for books, which are most of its bytes."""


def packages(firmware: Path) -> Path:
    """Where PlatformIO keeps its packages for the sources in `firmware`.

    That is firmware/.pio/core in a checkout, so that `pio run` there finds the same; for an
    installed edgecompress a folder of the user's cache.
    """
    home = firmware.resolve()
    if (home.parent / "pyproject.toml").is_file():
        return home / ".pio" / "core"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "edgecompress" / hashlib.sha256(str(home).encode()).hexdigest()[:12]


def prepare(firmware: Path) -> Path:
    """The folder of PlatformIO's project for `firmware`, with what it needs beside it.

    PlatformIO wants to write there: for an installed edgecompress it is a folder of links. Raises
    OSError where the user's cache cannot be written to.
    """
    provide_scons(firmware)
    home, source = packages(firmware), firmware.resolve()
    if home.is_relative_to(source):
        return firmware
    project = home / "project"
    project.mkdir(exist_ok=True)
    for entry in source.iterdir():
        with contextlib.suppress(FileExistsError):
            (project / entry.name).symlink_to(entry)
    return project


def run(
    firmware: Path,
    environment: str,
    *,
    targets: tuple[str, ...] = (),
    settings: Mapping[str, str],
    timeout: float,
    started: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    heard: Callable[[str], None] = lambda line: None,
) -> str:
    """`pio run` for one environment of `firmware`; what it said.

    `settings` are variables of the environment (PLATFORMIO_SRC_DIR), `timeout` is in seconds, and
    `started` gets the process, which may be given to `end`, and `heard` every line as it comes.
    Raises ToolError where it is not done in time, `Failed` where it ends with a status other than
    0.
    """
    home, project = packages(firmware), prepare(firmware)
    command = [sys.executable, "-m", "platformio", "run", "-d", str(project), "-e", environment]
    command += [part for target in targets for part in ("-t", target)]
    variables = {key: text for key, text in os.environ.items() if not _OTHERS.match(key)}
    variables |= {**_QUIET, "PLATFORMIO_CORE_DIR": str(home), **settings}
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        started(process)
        late = threading.Event()

        def stop() -> None:
            late.set()
            end(process)

        watch = threading.Timer(timeout, stop)
        watch.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                heard(line.rstrip())
        except BaseException:
            end(process)
            raise
        finally:
            watch.cancel()
    shown = f"pio run -e {' -t '.join((environment, *targets))}"
    if late.is_set():
        raise ToolError(f"{shown}: not done after {timeout:.0f} seconds")
    log = f"$ {shown}\n{''.join(said)}"
    if process.returncode:
        raise Failed(shown, process.returncode, log)
    return log


class Failed(ToolError):
    """PlatformIO ended with a status other than 0: `log` is all that it said."""

    def __init__(self, command: str, status: int, log: str) -> None:
        self.log = log
        known = [why for pattern, why in KNOWN.items() if re.search(pattern, log, re.I)]
        lines = [line.strip() for line in log.splitlines() if line.strip(" =-*")]
        errors = [line for line in lines if _ERROR.search(line)][:_ERRORS]
        told = errors or [line for line in lines if not _NOISE.search(line)][-_LAST:]
        super().__init__(f"{command}: exit status {status}: {'; '.join([*known[:1], *told])}")


_LAST, _ERRORS = 20, 5
_ERROR = re.compile(r"(^|\s)[Ee]rror\b.*:|undefined reference|multiple definition of")
_NOISE = re.compile(
    r"^(Verbose mode|LDF|\$ |Processing|Compiling|Found 0|Scanning|No depend|Building in|=+ )"
    r"|^\S+ +FAILED "
)
KNOWN: dict[str, str] = {
    r"HTTPClientError|InternetConnectionError|not connected to the Internet": (
        "PlatformIO's registry does not answer: connect to the Internet, or set HTTPS_PROXY"
    ),
    r"UnknownPackageError|Could not find the package with": (
        "PlatformIO's registry has no such package: check the versions in platformio.ini"
    ),
    r"permission denied: '?/dev/|permission denied.*tty|LIBUSB_ERROR_ACCESS": (
        "no permission on the board's port: `sudo usermod -aG dialout $USER` and log in again, or"
        " install PlatformIO's udev rules (99-platformio-udev.rules)"
    ),
    r"resource busy|could not exclusively lock port|port is busy": (
        "another program has the port open: close its serial monitor"
    ),
    r"Failed to connect to ESP32|Timed out waiting for packet header|No serial data received": (
        "the bootloader did not answer: hold BOOT, press RESET, let go of BOOT, then run it again"
    ),
    r"No device found on|couldn't find a board|No DFU capable USB device|specify `upload_port`": (
        "the bootloader did not answer: connect the board, press its reset button as docs/boards.md"
        " says, then run it again"
    ),
    r"init mode failed|Error: open failed|LIBUSB_ERROR_N|unable to find a matching CMSIS-DAP": (
        "no debug probe was found: use the board's ST-LINK connector and a cable that carries data"
    ),
    r"program size .* is greater than maximum allowed": "the image is too large for the board",
}
"""What may be found in PlatformIO's words, and what it means to the user."""


def registry(timeout: float = REACH) -> str | None:
    """Why PlatformIO's registry cannot be reached within `timeout` seconds; None where it can."""
    from platformio import __registry_mirror_hosts__ as hosts

    answers: list[str | None] = []
    done = threading.Event()

    def ask(host: str) -> None:
        try:
            with urllib.request.urlopen(f"https://{host}/", timeout=timeout):
                answer = None
        except urllib.error.HTTPError:
            answer = None  # it is there
        except (OSError, ValueError) as error:
            answer = str(getattr(error, "reason", error))
        answers.append(answer)
        if answer is None or len(answers) == len(hosts):
            done.set()

    # Daemons: the look-up of a name has no time-out of its own.
    for host in hosts:
        threading.Thread(target=ask, args=(host,), daemon=True).start()
    if not done.wait(timeout):
        return f"no answer in {timeout:g} s"
    return None if None in answers else answers[0]


def installed(firmware: Path, environment: str) -> bool:
    """Whether the development platform of `environment`, in its version, is there already."""
    platform = option(firmware, environment, "platform") or ""
    name, _, wanted = platform.rpartition("/")[2].partition("@")
    for manifest in (packages(firmware) / "platforms").glob(f"{name.strip()}*/platform.json"):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(manifest.read_text(encoding="utf-8")).get("version") == wanted.strip():
                return True
    return False


def need(firmware: Path, environment: str) -> None:
    """Raise ToolError where the packages of `environment` are missing and cannot be fetched.

    It takes REACH seconds; PlatformIO by itself gives up after a minute and does not say why.
    """
    platform = option(firmware, environment, "platform") or ""
    if platform.startswith(_HERE) or installed(firmware, environment):
        return
    why = registry()
    if why is not None:
        raise ToolError(
            f"{environment}: {platform}, its compiler and its framework"
            f" come from PlatformIO's registry, which cannot be reached ({why}); connect to the"
            " Internet or set HTTPS_PROXY, then run it again. What works without: --board qemu_m4"
            " and the other emulated boards, `edgecompress export` for a project to build elsewhere"
        )


def option(firmware: Path, environment: str, key: str) -> str | None:
    """The value of `key` for `environment` in platformio.ini, None where there is none."""
    config = ConfigParser(interpolation=None)
    config.read_string((firmware / CONFIG).read_text(encoding="utf-8"))
    section = f"env:{environment}"
    while section in config and key not in config[section]:
        section = config[section].get("extends", "")
    return config[section][key] if section in config else None


def end(process: subprocess.Popen[str]) -> None:
    """End PlatformIO and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)


def provide_scons(firmware: Path, home: Path | None = None) -> None:
    """Give PlatformIO the SCons of this Python environment, copied, as its package `tool-scons`.

    `home` is the folder in which it looks for packages: by default the one for `firmware`. The
    package needs nothing else of this environment.
    """
    folder = (home or packages(firmware)) / "packages" / "tool-scons"
    mark = f"platformio {version('platformio')}, a copy of scons {version('scons')}\n"
    keep = folder / ".piokeep"

    def there() -> bool:
        return keep.is_file() and keep.read_text(encoding="utf-8") == mark

    if there():
        return
    from platformio.dependencies import get_core_dependencies

    wanted = get_core_dependencies()["tool-scons"].lstrip("~^=")
    about = {"name": "tool-scons", "version": wanted}
    origin = {"owner": "platformio", "name": "tool-scons", "id": None}
    spec = {**origin, "requirements": None, "uri": None}

    def fill(fresh: Path) -> None:
        (source,) = import_module("SCons").__path__
        shutil.copytree(source, fresh / "SCons", ignore=shutil.ignore_patterns(*_LEFT_OUT))
        (fresh / "scons.py").write_text(_START, encoding="utf-8")
        (fresh / "package.json").write_text(
            json.dumps({**about, "description": "SCons, from PyPI", "system": "*"})
        )
        (fresh / ".piopm").write_text(json.dumps({"type": "tool", **about, "spec": spec}))
        (fresh / ".piokeep").write_text(mark, encoding="utf-8")

    try:
        write_folder(folder, fill)
    except OSError:  # another process may have done the same at the same time
        if not there():
            raise
