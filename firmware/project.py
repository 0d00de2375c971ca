"""What all environments share, before PlatformIO's platform has its say: sources and macros.

A board's environment is called as its folder in boards/; its board.toml is one `key = value` a
line. Sources are found by folder: the application, the board and its family, and the model in
generated/, or in empty/ where there is none. A model in C++ is one for TFLite Micro, which TFLM_DIR
names: a tree as its own makefile leaves it, or with the library at its top.
"""

import os
import platform
import re
from pathlib import Path

Import("env")  # noqa: F821  (SCons)
env = globals()["env"]

BOARD = env["PIOENV"]
SOURCES = Path(env.subst("$PROJECT_SRC_DIR"))
TEXT = Path(env.subst("$PROJECT_DIR"), "boards", BOARD, "board.toml").read_text(encoding="utf-8")
KEYS = dict(re.findall(r'^(\w+) = "?([^"\n]*)"?$', TEXT, re.M))
NUMBERS = ("scale", "hz", "baud", "clock_hz")
MODEL = "generated" if (SOURCES / "generated").is_dir() else "empty"
FAMILY = [KEYS["family"]] if "family" in KEYS else []
BUILT = os.environ.get("EC_IMAGE")  # a folder with what was built before, to upload
CXX = BUILT is None and any((SOURCES / MODEL).glob("*.cc"))
OVERSIZE = "EC_OVERSIZE" in os.environ  # link what is larger than the board, to measure it
TFLM = os.environ.get("TFLM_DIR") if CXX else None
LIBRARY = "libtensorflow-microlite.a"
MAKE = "tensorflow/lite/micro/tools/make"
HEADERS = ("flatbuffers/include", "gemmlowp", "ruy")


def optimised(env, node):
    """The model's own code is compiled to be fast, all other code to be small.

    Its sums of products are the interpreter's: no compiler may fuse the two.
    """
    if SOURCES / MODEL not in Path(node.srcnode().get_abspath()).parents:
        return node
    flags = [str(flag) for flag in env["CCFLAGS"] if not str(flag).startswith("-O")]
    flags += ["-O2", "-fno-merge-constants", "-ffp-contract=off"]
    language = "CFLAGS" if str(node).endswith(".c") else "CXXFLAGS"
    dialect = [str(flag) for flag in env.get(language, [])]
    if language == "CXXFLAGS":  # what TFLite Micro's headers are written in
        dialect = [*(flag for flag in dialect if not flag.startswith("-std=")), "-std=gnu++17"]
    said = env.subst(" ".join([*dialect, *flags]))
    Path(env.subst("$BUILD_DIR"), "flags.txt").write_text(said, encoding="utf-8")
    return env.Object(node, CCFLAGS=flags, **{language: dialect})


def core():
    """What TFLite Micro's makefile calls the board's core, as a pattern; None where that is not
    known: on a real board with an FPU the framework chooses the float ABI, later than here."""
    if KEYS["kind"] == "program":
        return re.escape(platform.machine())
    if "flags" not in KEYS:
        cpu = env.BoardConfig().get("build.cpu", "")
        return re.escape(cpu) if cpu in ("cortex-m0", "cortex-m0plus", "cortex-m3") else None
    (cpu,) = re.findall(r"-mcpu=(\S+)", KEYS["flags"])
    hard = "-mfloat-abi=hard" in KEYS["flags"] and cpu in ("cortex-m4", "cortex-m7")
    return re.escape(f"{cpu}+fp" if hard else cpu)


def library(tree):
    """TFLite Micro for the board in the folder `tree`, which has exactly one that fits."""
    if (tree / LIBRARY).is_file():
        return tree / LIBRARY
    places = (tree, tree / MAKE)
    files = (file for place in places for file in place.glob(f"gen/*/lib/{LIBRARY}"))
    built = {file.parts[-3]: file for file in files}
    wanted = core()
    fit = sorted(name for name in built if wanted and re.search(f"_{wanted}_", name))
    if len(fit) != 1:
        what = f"{'several libraries fit' if fit else 'no library fits'} {BOARD}"
        if wanted is None:
            what = f"which library fits {BOARD} is not known (its framework chooses the float ABI)"
        names = ", ".join(fit or sorted(built)) or "none"
        stop(
            f"TFLM_DIR={tree}: {what}: gen/ has {names}; build TFLite Micro for its core,"
            f" or put the {LIBRARY} to take into that folder"
        )
    return built[fit[0]]


def stop(why):
    """End the build."""
    print(f"Error: {why}")
    env.Exit(1)


folders = ["app", f"boards/{BOARD}", MODEL, *FAMILY]
env.Replace(
    EC_BOARD=KEYS,
    EC_TFLM=bool(TFLM),
    SRC_FILTER=["-<*>", *(f"+<{folder}/>" for folder in folders), "-<generated/example/>"],
)
if TFLM:
    tree = Path(TFLM).resolve()
    headers = [tree, *(tree / MAKE / "downloads" / folder for folder in HEADERS)]
    env.Append(
        CPPDEFINES=["TF_LITE_STATIC_MEMORY"],  # the library's structures are laid out by it
        CPPFLAGS=[part for folder in headers for part in ("-isystem", str(folder))],
        LIBS=[env.File(str(library(tree)))],
    )
elif CXX and not env.GetProjectOption("lib_deps", []):
    stop(f"{BOARD}: the model is for TFLite Micro; set TFLM_DIR to a build of it")
env.Append(
    CPPPATH=[str(SOURCES / folder) for folder in (MODEL, "include", *FAMILY)],
    CPPDEFINES=[
        ("EC_BOARD_ID", env.StringifyMacro(BOARD)),
        ("EC_BOARD_UNIT", env.StringifyMacro(KEYS["unit"])),
        *((f"EC_BOARD_{key.upper()}", KEYS[key]) for key in NUMBERS if key in KEYS),
    ],
    LINKFLAGS=[
        "-Wl,-Map," + env.subst("$BUILD_DIR/firmware.map"),
        *(["-Wl,--noinhibit-exec"] if OVERSIZE else []),
    ],
)
env.AddBuildMiddleware(optimised)
if BUILT is not None:
    env.Replace(BUILD_DIR=BUILT)
