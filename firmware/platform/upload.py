"""Start an emulated board: QEMU with the image, its serial port a pseudo-terminal.

    upload.py MACHINE IMAGE PORT [OPTION...]

PORT becomes a link to the terminal, PORT.pid has QEMU's process, PORT.log what it said. A board
that runs there already is ended first. The OPTIONs are QEMU's.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

OPTIONS = (
    *("-icount", "shift=0"),  # one instruction takes 1 ns of the machine's time
    *("-display", "none", "-monitor", "none"),
    *("-semihosting-config", "enable=on,target=native"),
)
SECONDS = 20.0


def command(machine, image, serial):
    """What starts `machine` with `image` and its serial port on `serial`."""
    return ["qemu-system-arm", "-M", machine, "-kernel", image, *OPTIONS, "-serial", serial]


def stop(port):
    """End the board that was started for `port`, if it still runs."""
    note = port.with_name(port.name + ".pid")
    try:
        process = int(note.read_text())
        if "qemu" in Path(f"/proc/{process}/comm").read_text():
            os.kill(process, signal.SIGKILL)
    except (OSError, ValueError):
        pass
    for file in (note, port):
        file.unlink(missing_ok=True)


def start(machine, image, port, options):
    """Start the board; its process and its pseudo-terminal."""
    said = port.with_name(port.name + ".log")
    run = [*command(machine, image, "pty"), *options]
    if shutil.which(run[0]) is None:
        sys.exit(f"Error: {run[0]}: not found on PATH")
    with said.open("w") as log:
        process = subprocess.Popen(
            run, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    port.with_name(port.name + ".pid").write_text(str(process.pid))
    until = time.monotonic() + SECONDS
    while True:
        found = re.search(r"redirected to (/dev/\S+)", said.read_text())
        if found:
            break
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            sys.exit(f"Error: QEMU did not start: {' '.join(said.read_text().split())}")
        time.sleep(0.02)
    port.symlink_to(found[1])
    return process.pid, found[1]


if __name__ == "__main__":
    machine, image, name, *options = sys.argv[1:]
    port = Path(name)
    port.parent.mkdir(parents=True, exist_ok=True)
    stop(port)
    process, terminal = start(machine, image, port, options)
    print(f"{machine} runs, its serial port is {terminal} ({port})")
    print(f"It ends when the host says goodbye, or after minutes of silence; or: kill {process}")
