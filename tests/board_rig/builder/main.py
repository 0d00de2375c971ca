"""Builds a port of firmware/arduino with this computer's compiler, and runs it as its board."""

import os
from pathlib import Path

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
here = Path(env.PioPlatform().get_dir())
shim = here.parent / "arduino_shim"
env.Replace(PROGNAME="firmware", PROGSUFFIX=".elf")
env.Append(
    CPPPATH=[str(shim)],
    CCFLAGS=["-Os", "-ffunction-sections", "-fdata-sections", "-fno-pie"],
    LINKFLAGS=["-Wl,--gc-sections", "-no-pie", "-Wl,-Tdata=0x20000000"],  # where the board has RAM
    LIBS=["m"],
)
if "nobuild" in COMMAND_LINE_TARGETS:
    program = env.File(os.path.join("$BUILD_DIR", "firmware.elf"))
else:
    env.BuildSources("$BUILD_DIR/shim", str(shim))
    program = env.BuildProgram()
AlwaysBuild(env.Alias("nobuild", program))
Default([AlwaysBuild(env.Alias("buildprog", program))])
env.AddPlatformTarget(
    "upload",
    program,
    f'"$PYTHONEXE" "{here / "upload.py"}" "$SOURCE" "{os.environ.get("RIG", "")}" "$UPLOAD_PORT"',
    "Upload",
)
