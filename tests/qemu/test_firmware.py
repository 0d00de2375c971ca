"""Application, protocol and boards: the same model on this computer and on emulated Cortex-Ms."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from edgecompress import boards
from edgecompress.backends import firmware_folder
from edgecompress.building import firmware
from edgecompress.building.firmware import Image
from edgecompress.errors import DeviceError
from edgecompress.measuring import emulator
from tests import small_firmware
from tests.conftest import need, nightly
from tests.small_firmware import MODEL, fields, line, running

EMULATED = ("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55")
FIRST, SECOND = bytes([1, 2, 3, 4]), bytes(range(100))
SUMS = bytes(2 * i for i in range(100))

Images: TypeAlias = Callable[[str], Image]


def needs(board: str) -> None:
    for what in ("cc",) if board == "host" else ("arm-gcc", "qemu"):
        need(what)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The model's image for a board, built once."""
    folder, built = tmp_path_factory.mktemp("images"), {}

    def get(board: str) -> Image:
        needs(board)
        if board not in built:
            built[board] = small_firmware.build(folder, board)
        return built[board]

    return get


@pytest.mark.parametrize("board", ["host", *EMULATED])
def test_a_session_from_hello_to_the_end(board: str, images: Images) -> None:
    known = boards.load(board)
    with running(images(board)) as device:
        hello = device.ask("@hi")
        assert [fields(text) for text in hello] == [
            {
                "proto": "1",
                "board": board,
                "model": "two%20words",
                "sha": "0123456789abcdef" * 4,
                "backend": "aot",
                "inputs": "4,100",
                "outputs": "100,4",
                "ops": "2",
                "arena": "208",
                "unit": known.unit,
                "scale": known.scale,
                "hz": str(known.hz),
            }
        ]
        device.load(FIRST, SECOND)
        timed, *rest = device.ask("@go i=0 profile=0")
        ticks = int(fields(timed)["ticks"])
        assert timed == f"@run i=0 ticks={ticks}" and ticks > 0
        assert rest[:3] == outputs(0)
        assert rest[4] == "@end i=0 turns=0"
        number, stack, arena = fields(rest[3]).values()
        assert (number, arena) == ("0", "208")
        assert stack == "-" if board == "host" else 100 < int(stack) < 1000

        device.load(FIRST, SECOND)
        profiled = device.ask("@go i=1 profile=1")
        assert [re.sub("ticks=[0-9]+$", "", text) for text in profiled[:2]] == [
            "@op i=1 t=0 n=0 kind=ADD ",
            "@op i=1 t=1 n=1 kind=odd%20%25kind ",
        ]
        assert int(fields(profiled[0])["ticks"]) > 0
        assert profiled[2:5] == outputs(1)
        assert profiled[6] == "@end i=1 turns=2"

        device.load(FIRST, SECOND)
        again = fields(device.ask("@go i=2 profile=0")[0])
        assert board == "host" or again == {"i": "2", "ticks": str(ticks)}
        assert device.ask("@bye") == ["@bye"]
        device.child.finish()


def outputs(run: int) -> list[str]:
    return [
        f"@out i={run} n=0 o=0 hex={SUMS[:64].hex()}",
        f"@out i={run} n=0 o=64 hex={SUMS[64:].hex()}",
        f"@out i={run} n=1 o=0 hex={FIRST[::-1].hex()}",
    ]


@pytest.mark.parametrize("board", ["host", "qemu_m4"])
def test_what_is_asked_for_again_is_answered_and_not_done_again(board: str, images: Images) -> None:
    with running(images(board)) as device:
        device.ask("@hi")
        device.load(FIRST, SECOND)
        # What is there already is acknowledged; anything else is refused, and it stays as it is.
        device.load(FIRST, SECOND)
        assert device.ask("@in n=0 o=1 hex=0203") == ["@ok n=0 o=3"]
        for other in ("n=0 o=0 hex=00000000", "n=0 o=1 hex=0200", "n=1 o=99 hex=00"):
            assert device.ask(f"@in {other}") == ["@fail where=input code=1"], other
        answer = device.ask("@go i=0 profile=0")
        assert answer[1:4] == outputs(0)
        assert [device.ask("@go i=0 profile=0") for _ in range(2)] == [answer] * 2
        # Any other run was not asked for, or is gone: the next, one by operators, one before.
        for other in ("i=1 profile=0", "i=0 profile=1", "i=4294967295 profile=0"):
            assert device.ask(f"@go {other}") == ["@fail where=input code=2"], other
        device.load(FIRST, SECOND)
        assert device.ask("@go i=0 profile=0") == ["@fail where=input code=2"]
        assert device.ask("@go i=2 profile=0") == ["@fail where=input code=2"]
        profiled = device.ask("@go i=1 profile=1")
        assert profiled[-1] == "@end i=1 turns=2"
        for profile in (0, 1):
            again = device.ask(f"@go i=1 profile={profile}")
            assert again == ["@fail where=input code=2"]


REFUSED = {
    "@hi ": "@fail where=command code=1",
    "@go": "@fail where=command code=1",
    "@go profile=0": "@fail where=command code=1",
    "@go i=0": "@fail where=command code=1",
    "@go i= profile=0": "@fail where=command code=1",
    "@go i=0 profile=2": "@fail where=command code=1",
    "@go i=0 profile=0": "@fail where=input code=2",
    "@in n=0 hex=00": "@fail where=command code=1",
    "@in n=0 o=0 hex=": "@fail where=command code=1",
    "@in n=0 o=0 hex=0": "@fail where=command code=1",
    "@in n=0 o=0 hex=0G": "@fail where=command code=1",
    "@in n=0 o=0 hex=AB": "@fail where=command code=1",
    "@in n=0 o=4294967296 hex=00": "@fail where=command code=1",
    "@in n=0 o=-1 hex=00": "@fail where=command code=1",
    "@in n=0 o=0 hex=" + "00" * 65: "@fail where=command code=1",
    "@in n=0 o=0 hex=" + "00" * 90: "@fail where=line code=1",
    "@in n=0 o=0 hex=0102030405": "@fail where=input code=1",
    "@in n=0 o=1 hex=00": "@fail where=input code=1",
    "@in n=0 o=4294967295 hex=0000": "@fail where=input code=1",
    "@in n=2 o=0 hex=00": "@fail where=input code=1",
    "@in n=1 o=0 hex=00": "@fail where=input code=1",
    "@in n=4294967295 o=0 hex=00": "@fail where=input code=1",
}


@pytest.mark.parametrize("board", ["host", "qemu_m4"])
def test_what_is_refused_leaves_the_session_as_it_was(board: str, images: Images) -> None:
    with running(images(board)) as device:
        assert device.ask("@go i=0 profile=0") == ["@fail where=command code=2"]
        device.ask("@hi")
        for text, answer in REFUSED.items():
            assert device.ask(text) == [answer], text
        good = line("@hi")
        for bad in (b"@hi\n", b"@\n", b"@hi *00000000\n", good.upper(), good[:-2] + b"\n"):
            assert device.raw(bad) == ["@fail where=line code=2"], bad
        assert device.raw(b"noise\n\n *0\n" + good[:-1] + b"\r\n")[0].startswith("@hello")
        device.load(FIRST, SECOND)
        assert device.ask("@in n=1 o=100 hex=00") == ["@fail where=input code=1"]
        assert device.ask("@in n=0 o=4 hex=00") == ["@fail where=input code=1"]
        assert device.ask("@in n=0 o=3 hex=0000") == ["@fail where=input code=1"]
        assert device.ask("@in n=2 o=0 hex=00") == ["@fail where=input code=1"]
        assert device.ask("@go i=0 profile=0")[1:4] == outputs(0)
        device.load(FIRST, SECOND)
        device.ask("@hi")
        assert device.ask("@go i=0 profile=0") == ["@fail where=input code=2"]


@pytest.mark.parametrize("board", ["qemu_m4", "qemu_m55"])
def test_a_tick_is_as_many_instructions_as_the_board_says(board: str, tmp_path: Path) -> None:
    needs(board)
    instructions = nightly(10**6, 7 * 10**8)  # many: the 24 bits of the counter wrap
    spin = (
        f"uint32_t left = {instructions // 2}u;\n"
        '    __asm volatile("1: subs %0, %0, #1; bne 1b" : "+l"(left)::"cc");\n'
        "    ec_small_add(&p_0"
    )
    files = small_firmware.sources(**{"ec_small_add(&p_0": spin})
    with running(small_firmware.build(tmp_path, board, files)) as device:
        device.ask("@hi")
        device.load(FIRST, SECOND)
        ticks = int(fields(device.ask("@go i=0 profile=0")[0])["ticks"])
    expected = instructions / boards.load(board).units_per_tick
    assert expected < ticks < expected + 40


def test_an_emulator_that_does_not_count_instructions_is_told(images: Images) -> None:
    image = images("qemu_m4")
    command = emulator.command(image.board, image.elf)
    place = command.index("shift=0")
    for wrong in (command[: place - 1] + command[place + 1 :], [*command, "-icount", "shift=1"]):
        with running(image, command=wrong) as device:
            assert device.ask("@hi") == ["@fail where=board code=1"]
            assert device.ask("@go i=0 profile=0") == ["@fail where=command code=2"]


@pytest.mark.parametrize("board", ["host", "qemu_m3"])
def test_a_model_that_fails_is_told(board: str, tmp_path: Path) -> None:
    needs(board)
    files = small_firmware.sources(
        **{
            "ec_model_init(void) {\n    return EC_MODEL_OK": "ec_model_init(void) {\n"
            "    static int calls = 0;\n"
            "    if (calls++ == 0) return EC_MODEL_ERR_ARENA;\n    return EC_MODEL_OK",
            "ec_model_invoke(void) {": "ec_model_invoke(void) {\n"
            "    if (ec_arena[0] == 9) return EC_MODEL_ERR_INVOKE;",
        }
    )
    with running(small_firmware.build(tmp_path, board, files)) as device:
        assert device.ask("@hi") == ["@fail where=model code=3"]
        assert device.ask("@go i=0 profile=0") == ["@fail where=command code=2"]
        device.ask("@hi")
        device.load(FIRST, bytes([9]) * 100)
        assert device.ask("@go i=0 profile=0") == ["@fail where=invoke code=6"]
        device.load(FIRST, SECOND)
        assert device.ask("@go i=0 profile=0")[1:4] == outputs(0)


DEEP = """ec_model_invoke(void) {
    volatile uint8_t deep[%d];
    for (uint32_t i = 0; i < sizeof deep; i++) deep[i] = 1;"""


@pytest.mark.parametrize(
    ("board", "fault"),
    [
        ("qemu_m3", 'ec_model_invoke(void) {\n    __asm volatile("udf #0");'),
        ("qemu_m4", DEEP % 8000),
        ("qemu_m55", DEEP % 8000),
    ],
)
def test_a_fault_and_a_stack_too_small_end_the_machine(
    board: str, fault: str, tmp_path: Path
) -> None:
    needs(board)
    files = small_firmware.sources(**{"ec_model_invoke(void) {": fault})
    with running(small_firmware.build(tmp_path, board, files)) as device:
        device.ask("@hi")
        device.load(FIRST, SECOND)
        with pytest.raises(DeviceError, match="status 99: a fault of the processor"):
            device.ask("@go i=0 profile=0")


def test_the_stack_is_seen_at_its_deepest(tmp_path: Path) -> None:
    needs("qemu_m4")
    files = small_firmware.sources(**{"ec_model_invoke(void) {": DEEP % 2000})
    with running(small_firmware.build(tmp_path, "qemu_m4", files)) as device:
        device.ask("@hi")
        device.load(FIRST, SECOND)
        answer = device.ask("@go i=0 profile=0")
    assert 2000 < int(fields(answer[-2])["stack"]) < 2400


def test_the_program_leaves_when_the_host_is_gone(images: Images) -> None:
    elf = images("host").elf
    assert subprocess.run([elf], input=b"", timeout=20).returncode == 1
    done = subprocess.run([elf], input=line("@bye"), timeout=20, capture_output=True)
    assert (done.returncode, done.stdout) == (0, line("@bye"))


def test_the_machine_ends_when_nobody_drives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("qemu_m4")
    shutil.copytree(firmware_folder(), tmp_path / "firmware")
    file = tmp_path / "firmware" / "mps" / "board.c"
    polls, text = "EC_UART_POLLS 1000000000u", file.read_text()
    assert polls in text
    file.write_text(text.replace(polls, "EC_UART_POLLS 1000000u"))
    monkeypatch.setattr(firmware, "firmware_folder", lambda: tmp_path / "firmware")
    image = small_firmware.build(tmp_path, "qemu_m4")
    command = emulator.command(image.board, image.elf)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as machine:
        assert machine.wait(60) == 1


def test_no_line_from_outside_breaks_the_application(tmp_path: Path) -> None:
    need("cc")
    root = firmware_folder()
    units = [*(root / "app").glob("*.c"), *(root / "boards" / "host").glob("*.c")]
    includes = [f"-I{folder}" for folder in (root / "include", MODEL)]
    defines = ['-DEC_BOARD_ID="x"', '-DEC_BOARD_UNIT="y"', "-DEC_BOARD_SCALE=1", "-DEC_BOARD_HZ=0"]
    checks = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = tmp_path / "program"
    command = ["cc", "-std=c11", "-O1", *checks, *defines, *includes]
    command += [*map(str, units), *map(str, MODEL.glob("*.c")), "-o", str(program)]
    subprocess.run(command, check=True)

    generator = random.Random(0)
    valid = [b"@hi", b"@go i=0 profile=0", b"@go i=1 profile=1", *map(str.encode, REFUSED)]
    valid += [b"@in n=0 o=0 hex=01020304", b"@in n=1 o=0 hex=" + b"07" * 64]
    lines = []
    for _ in range(3000):
        text = bytearray(generator.choice(valid))
        for _ in range(generator.choice((0, 0, 1, 1, 2, 9))):
            place = generator.randrange(len(text))
            text[place : place + generator.randrange(3)] = generator.randbytes(
                generator.choice((0, 1, 1, 1, 2, 150))
            )
            text = text or bytearray(b"@")
        plain = bytes(text).replace(b"\n", b"")
        lines.append(generator.choice((line(plain), line(plain), plain + b"\n")))
    done = subprocess.run([program], input=b"".join(lines), timeout=120, capture_output=True)
    assert done.stderr == b""
    assert done.returncode == 1
    answers = done.stdout.splitlines(keepends=True)
    assert len(answers) > 1500
    for answer in answers:
        assert answer == line(answer.decode().rpartition(" *")[0])
    heads = {answer.split(b" ")[0] for answer in answers}
    assert heads >= {b"@hello", b"@ok", b"@fail"}
