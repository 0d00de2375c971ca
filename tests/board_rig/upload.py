"""upload.py IMAGE RIG [PORT]: run the image behind a pseudo-terminal, to which RIG/port leads.

RIG/process has its process, RIG/upload_port the port that PlatformIO was given. RIG/refuse, where
there is one, is what the upload fails with.
"""

import os
import subprocess
import sys
import tty
from pathlib import Path

image, rig, *given = sys.argv[1:]
folder = Path(rig)
(folder / "upload_port").write_text("".join(given))
if (folder / "refuse").is_file():
    sys.exit((folder / "refuse").read_text())
(folder / "port").unlink(missing_ok=True)
master, slave = os.openpty()
tty.setraw(slave)
# The board keeps its own end open, so that the line outlives whoever opens it.
board = subprocess.Popen(
    [image],
    stdin=master,
    stdout=master,
    stderr=subprocess.DEVNULL,
    pass_fds=[slave],
    start_new_session=True,
)
(folder / "process").write_text(str(board.pid))
(folder / "port").symlink_to(os.ttyname(slave))
