"""PlatformIO's builder for boards whose compiler is on PATH: board.toml names it, and its flags."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from SCons.Script import COMMAND_LINE_TARGETS, Action, AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
keys = env["EC_BOARD"]
compiler = keys["compiler"]
if shutil.which(compiler) is None:
    print(f"Error: {compiler}: not found on PATH")
    env.Exit(1)

tools = compiler.removesuffix("gcc") if compiler.endswith("gcc") else ""
machine = keys.get("flags", "").split()
strict = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion"]
env.Replace(
    CC=compiler,
    CXX=f"{tools}g++",
    LINK=compiler,
    AR=f"{tools}ar",
    RANLIB=f"{tools}ranlib",
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
)
env.Append(  # no path of this machine gets into the image
    CPPFLAGS=[f"-ffile-prefix-map={env.subst('$PROJECT_SRC_DIR')}=."],
    CCFLAGS=[*machine, "-Os", "-ffunction-sections", "-fdata-sections", *strict],
    CFLAGS=["-std=c11"],
    CXXFLAGS=["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"],
    LINKFLAGS=[*machine, "-Wl,--gc-sections"],
    LIBS=["m"],
)
script = Path(env.subst("$PROJECT_DIR"), keys.get("family", ""), "link.ld")
if env["EC_TFLM"]:  # C++'s own library, where the compiler has one, and what stands for a system
    tree = Path(os.environ["TFLM_DIR"]).resolve()
    env.Append(CPPFLAGS=[f"-ffile-prefix-map={tree}=tflite-micro"])
    ask = [compiler, *machine, "-print-file-name=libstdc++.a"]
    if os.path.isabs(subprocess.run(ask, capture_output=True, text=True, check=True).stdout):
        env.Append(LIBS=["stdc++"])
    if script.is_file():
        env.Append(LINKFLAGS=["--specs=nosys.specs"])
if script.is_file():
    sizes = ("flash_origin", "flash_bytes", "ram_origin", "ram_bytes", "stack_bytes")
    env.Append(
        LINKFLAGS=[
            *("-nostartfiles", "--specs=nano.specs", "-T", str(script)),
            *(f"-Wl,--defsym=ec_{name}={keys[name]}" for name in sizes),
        ]
    )

if "nobuild" in COMMAND_LINE_TARGETS:
    program = env.File(os.path.join("$BUILD_DIR", "firmware.elf"))
else:
    program = env.BuildProgram()
AlwaysBuild(env.Alias("nobuild", program))
AlwaysBuild(env.Alias("buildprog", program))
Default(["buildprog"])
if "machine" in keys:
    upload = [
        *(env.subst("$PYTHONEXE"), env.subst("$PROJECT_DIR/platform/upload.py")),
        *(keys["machine"], "$SOURCE", f"$PROJECT_WORKSPACE_DIR/{env['PIOENV']}.port"),
        *json.loads(os.environ.get("EC_EMULATOR_OPTIONS", "[]")),
    ]
    env.AddPlatformTarget(
        "upload",
        program,
        [env.VerboseAction(Action([upload]), "Starting $SOURCE in QEMU")],
        "Start in QEMU",
    )
