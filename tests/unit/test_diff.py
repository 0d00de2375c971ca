"""Comparing reports: figures, limits, the comment on a pull request, its files and exit codes."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecompress import cli
from edgecompress.budget import AccuracyLimit, BoardLimit, Bounds, Budget, SizeLimit, judge
from edgecompress.report import AccuracyRow, BoardRow, Change, Report, Verdict, comment, runs
from edgecompress.report.boards import Cost, OpCost, Timing
from edgecompress.report.checks import ReportError
from edgecompress.report.diff import Diff, Model, diff, model
from edgecompress.report.image import Attribution, FlashParts, RamParts, SymbolRow
from tests.reports import EMULATED, IMAGE, REAL, REPORT, SYMBOLS, UNBUILT, changed, operator, symbol

LIMITS = Budget(
    AccuracyLimit(max_drop=0.03, min=0.9),
    SizeLimit(tflite="8K"),
    {"qemu_m4": BoardLimit(flash="6K", ram=Bounds(most=600, least=400, tolerance="2%"))},
)
BASE = judge(REPORT, LIMITS)


def larger() -> Report:
    """REPORT with a wider last layer, quantised worse, and a new function with an ugly name."""
    wide = dataclasses.replace(
        REPORT.operators[2], weight_bytes=1140, params=1128, weights=1100, macs=3000, sqnr_db=25.0
    )
    symbols = [dataclasses.replace(s, flash=4200) if s.name == "w_1" else s for s in SYMBOLS]
    symbols += [symbol("new|`<x>@me", "kernels", 77, 0, 2)]
    image = dataclasses.replace(
        IMAGE,
        flash=dataclasses.replace(IMAGE.flash, weights=5200, kernels=1176),
        symbols=tuple(symbols),
    )
    assert EMULATED.timing is not None
    row = dataclasses.replace(
        EMULATED,
        flash=image.flash.total,
        image=image,
        timing=dataclasses.replace(EMULATED.timing, per_inference=9900),
        profile=(OpCost("ec_conv_s8", 6000), OpCost("", 100), OpCost("f", 3700)),
    )
    test, noisy = REPORT.accuracy
    return changed(
        operators=(*REPORT.operators[:2], wide),
        boards=(REAL, UNBUILT, row),
        accuracy=(
            dataclasses.replace(test, compressed=0.89, confusion=None),
            dataclasses.replace(noisy, samples=60),
        ),
        sha256="cd" * 32,
        size=dataclasses.replace(REPORT.size, tflite=Change(20000, 9100), macs=Change(9000, 5000)),
        tools={**REPORT.tools, "python": "3.12.1"},
        steps=(dataclasses.replace(REPORT.steps[0], params={"ratio": 0.2}), REPORT.steps[1]),
    )


HEAD = judge(larger(), LIMITS)
COMMENT = """\
<!-- edgecompress-footprint -->

### Footprint: over budget, **tiny**: 4 of 5 limits broken

- size.tflite is 9,100, must be ≤ 8,192: over by 908 (11.1%). Causes: weights of \
classes +1,024 bytes, the rest of the file +76 bytes
- accuracy.max\\_drop is 0.06, must be ≤ 0.03: over by 0.03 (100.0%). Causes: \
quantising lost 0.04 more, SQNR of classes fell by 5.5 dB
- accuracy.min is 0.89, must be ≥ 0.9: under by 0.01 (1.1%). Causes: quantising lost \
0.04 more, SQNR of classes fell by 5.5 dB
- board.qemu_m4.flash is 7,293, must be ≤ 6,144: over by 1,149 (18.7%). Causes: \
weights of classes +1,200 bytes, kernels of classes +77 bytes

| figure | base | head | change | allowed |  |
| --- | --- | --- | --- | --- | --- |
| .tflite bytes | 8,000 | 9,100 | +1,100 (+13.8%) | ≤ 8,192 | **OVER** |
| MACs per inference | 4,500 | 5,000 | +500 (+11.1%) |  |  |
| top1 test | 93.00% | 89.00% | -4.00 points | ≥ 90.00% | **UNDER** |
| top1 noisy | 80.00% | 80.00% | not comparable: top1 of 50 samples, with noise in the base, \
top1 of 60 samples, with noise here |  |  |
| qemu_m4 flash bytes | 6,016 | 7,293 | +1,277 (+21.2%) | ≤ 6,144 | **OVER** |
| qemu_m4 RAM bytes | 576 | 576 | 0 | ≤ 600 and ≥ 400 (tolerance 2%) | ok |
| qemu_m4 instructions | 9,000 | 9,900 | +900 (+10.0%) |  |  |
| lost since float32 | 2.00% | 6.00% | +4.00 points | ≤ 3.00% | **OVER** |

11 further figures did not change.

""".replace("\\_", "_")


def compared(base: Report | None, head: Report, limits: Budget = LIMITS) -> Model:
    return model(base, head, limits=limits.limits(), skipped="" if base else "there is none")


def rows(found: Model) -> dict[str, tuple[float | None, float | None, float | None]]:
    return {row.figure: (row.base, row.head, row.delta) for row in found.rows}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where there are base.json, head.json and budget.toml."""
    (tmp_path / "base.json").write_text(BASE.to_json())
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "report.json").write_text(HEAD.to_json())
    (tmp_path / "budget.toml").write_text(
        '[accuracy]\nmax_drop = 0.03\nmin = 0.9\n[size]\ntflite = "8K" # bytes\n'
        '[board.qemu_m4]\nflash = "6K"\nram = {most = 600, least = 400, tolerance = "2%"}\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_pull_request_goes_over_budget_and_is_accepted(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = ["--markdown", "out/c.md", "--json", "out/d.json", "--csv", "out/d.csv"]
    command = ["diff", "base.json", "head", "--budget", "budget.toml", *files]
    assert cli.main(command) == 3
    told = capfd.readouterr()
    assert told.out.startswith(COMMENT + "<details>\n<summary>tiny: flash by part</summary>\n")
    assert told.out.count("<details>") == 4
    assert (folder / "out" / "c.md").read_text() == told.out
    assert told.err.startswith("edgecompress: tiny: over budget: size.tflite is 9,100, must be")
    for line in (
        "| qemu_m4 flash: weights | 4,000 | 5,200 | +1,200 (+30.0%) |",
        "| classes | MACs per inference | 2,000 | 3,000 | +1,000 |",
        "| classes | qemu_m4 flash bytes | 3,200 | 4,477 | +1,277 |",
        "| weights of classes | qemu_m4 flash bytes | 3,000 | 4,200 | +1,200 |",
        "| new\\|\\`&lt;x&gt;@\u200bme (kernels, model.o) | qemu_m4 flash bytes | 0 | 77 | +77 |",
        "- python 3.11.7 in the base, 3.12.1 here",
        "- prune_structured: ratio 0.5 in the base, 0.2 here",
        "- nano33: 2 of 192 outputs differ from the TFLM interpreter's",
        "- pico: not built: its platform cannot be had here",
    ):
        assert told.out.splitlines().count(line) == 1
    whole = json.loads((folder / "out" / "d.json").read_text())
    assert whole["ok"] is False
    (flash,) = (row for row in whole["models"][0]["rows"] if row["figure"] == "board.qemu_m4.flash")
    assert (flash["delta"], flash["percent"], flash["verdict"]) == (1277, 21.2267, flash["figure"])
    with (folder / "out" / "d.csv").open(newline="") as file:
        table = {row["figure"]: row for row in csv.DictReader(file)}
    assert (table["size.macs"]["delta"], table["size.macs"]["ok"]) == ("500", "")
    assert (table["accuracy.test"]["least"], table["accuracy.test"]["ok"]) == ("0.9", "False")
    accept = ["budget", "head", "--budget", "budget.toml", "--accept", "--why", "wider"]
    assert cli.main(accept) == 0
    capfd.readouterr()
    assert cli.main(command) == 0
    out = capfd.readouterr().out
    assert "### Footprint: within budget, 5 limits kept, **tiny**; largest change:" in out
    assert '"8.9K" # bytes' in (folder / "budget.toml").read_text()


def test_the_budget_is_the_heads_own_unless_another_is_given(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["diff", "base.json", "head"]) == 3
    (folder / "loose.toml").write_text('[size]\ntflite = "1M"\n')
    assert cli.main(["diff", "base.json", "head", "--budget", "loose.toml"]) == 0
    (folder / "head" / "report.json").write_text(changed(BASE, name="kws").to_json())
    capfd.readouterr()
    assert cli.main(["diff", "base.json", "head"]) == 0
    assert "| 576 | - | ≤ 7,372 | ok |" in capfd.readouterr().out  # the zoo's, wide for this one


def test_without_a_base_the_head_is_shown_and_judged(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["diff", "gone.json", "head"]) == 3
    out = capfd.readouterr().out
    assert "Comparison skipped because gone.json: no report there;" in out
    assert "| .tflite bytes | - | 9,100 | - | ≤ 8,192 | **OVER** |" in out
    assert "must be ≤ 8,192: over by 908 (11.1%). Causes: the rest of the file 7,844 bytes" in out
    older = {**json.loads(BASE.to_json()), "schema": 1}
    (folder / "base.json").write_text(json.dumps(older))
    assert cli.main(["diff", "base.json", "head"]) == 3
    assert (
        "because base.json: written by an older edgecompress (schema 1," in capfd.readouterr().out
    )
    (folder / "base.json").write_text(changed(BASE, name="another").to_json())
    assert cli.main(["diff", "base.json", "base.json"]) == 0
    capfd.readouterr()
    assert cli.main(["diff", "base.json", "head"]) == 3
    out = capfd.readouterr().out
    assert "because the base has no report of this model (**tiny**)" in out
    assert "- another: the base has a report of it, the head has none" in out


def test_without_a_head_no_table_of_an_earlier_run_stays(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = folder / "c.md"
    for command, code in (
        (["diff", "base.json", "gone"], 1),
        (["diff", "base.json", "head", "--budget", "gone.toml"], 2),
    ):
        file.write_text("an earlier table")
        assert cli.main([*command, "--markdown", "c.md"]) == code
        text = file.read_text()
        assert text == capfd.readouterr().out
        assert text.startswith(f"{comment.MARKER}\n\n### Footprint: not measured\n\nComparison sk")
        assert "gone" in text
    (folder / "head" / "report.json").write_text("{")
    assert cli.main(["diff", "base.json", "head", "--markdown", "c.md"]) == 1
    assert "head/report.json: not JSON" in file.read_text()


def test_folders_of_reports_are_matched_by_model(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = changed(BASE, name="other")
    for name, reports in (("was", (BASE, other)), ("is", (HEAD, other))):
        (folder / name / "run").mkdir(parents=True)
        (folder / name / "tiny.json").write_text(reports[0].to_json())
        (folder / name / "run" / "report.json").write_text(reports[1].to_json())
    assert cli.main(["diff", "was", "is"]) == 3
    lines = capfd.readouterr().out.splitlines()
    assert "### Footprint: over budget, 2 models: 4 of 10 limits broken" in lines
    (span,) = (line for line in lines if line.startswith("| least to most |"))
    assert span == (
        "| least to most |  | +0.0% to +21.2% | +0.0% | +0.0% to +10.0% | +0.0% to +13.8% |"
        " -4.00 points to 0 |"
    )
    assert any(line.startswith("| **tiny** | 4 broken | nano33: 90,000<br>qemu_") for line in lines)
    assert any(line.startswith("| **other** | ok | nano33: 90,000<br>qemu_m4: 6") for line in lines)
    assert cli.main(["diff", "was", "is", "--budget", "budget.toml"]) == 2
    assert "--budget: for one model; is has other, tiny" in capfd.readouterr().err
    (folder / "is" / "again.json").write_text(other.to_json())
    with pytest.raises(ReportError, match=r"report.json: a second report of other; keep one in is"):
        runs.read_all(Path("is"))


def test_a_model_among_several_says_what_has_no_difference() -> None:
    test, *others = REPORT.accuracy
    auc = dataclasses.replace(test, metric="auc", confusion=None)
    head = changed(boards=(REAL, dataclasses.replace(EMULATED, board="qemu_m3")))
    head = changed(head, accuracy=(auc, *others))
    text = comment.render(Diff((compared(REPORT, head), compared(None, REPORT)), ()))
    (line,) = (line for line in text.splitlines() if line.startswith("| **tiny** | 2 broken"))
    flash = "nano33: 90,000<br>qemu_m3: 6,016 (new)<br>qemu_m4: not measured"
    assert line.split(" | ")[2] == flash
    assert line.endswith(" | 8,000 | 0.9300 (not comparable) |")


def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("build/kws", "kept"):
        Path(place).mkdir(parents=True)
        Path(place, "report.json").write_text("")
    assert runs.locate("kws") == Path("build/kws/report.json")
    assert runs.locate("kept") == Path("kept/report.json")
    assert runs.locate("kept/report.json") == Path("kept/report.json")


def test_what_cannot_be_compared_has_no_difference() -> None:
    assert REAL.timing is not None
    otherwise = dataclasses.replace(REAL.timing, unit="nanoseconds", source="clock")
    faster = dataclasses.replace(REAL.timing, clock_hz=128_000_000, per_inference=12000)
    test, noisy = REPORT.accuracy
    head = changed(
        boards=(dataclasses.replace(REAL, timing=otherwise), UNBUILT, EMULATED),
        accuracy=(dataclasses.replace(test, metric="auc", confusion=None), noisy),
    )
    found = rows(compared(REPORT, head))
    assert found["board.nano33.cycles"] == (12000, None, None)
    assert found["board.nano33.microseconds"][2] is None
    assert found["accuracy.test"] == (0.93, 0.93, None)
    assert found["accuracy.max_drop"][2] is None
    assert found["accuracy.noisy"][2] == 0
    head = changed(boards=(dataclasses.replace(REAL, timing=faster), EMULATED))
    again = compared(REPORT, head)
    assert rows(again)["board.nano33.microseconds"] == (187.5, 93.75, -93.75)
    assert "nano33: 64 MHz, flash with wait states in the base, 128 MHz, flash" in again.notes[-1]
    built = [
        changed(boards=(dataclasses.replace(EMULATED, compiler=f"arm-none-eabi-gcc {version}"),))
        for version in ("12.2.1", "13.2.1")
    ]
    note = "qemu_m4: arm-none-eabi-gcc 12.2.1 in the base, arm-none-eabi-gcc 13.2.1 here"
    assert compared(*built).notes[-1] == note
    chosen = [
        changed(boards=(dataclasses.replace(EMULATED, optimize=aim),)) for aim in ("ram", "speed")
    ]
    note = "qemu_m4: kernels chosen for ram in the base, kernels chosen for speed here"
    assert compared(*chosen).notes[-1] == note


def test_the_drop_of_another_split_is_not_compared() -> None:
    test, noisy = REPORT.accuracy
    found = compared(changed(accuracy=(noisy, test)), REPORT)
    assert rows(found)["accuracy.max_drop"] == pytest.approx((0.05, 0.02, None))
    assert rows(found)["accuracy.test"][2] == 0


def test_a_board_that_the_head_lost_breaks_its_limits() -> None:
    found = compared(REPORT, changed(boards=(REAL,)))
    assert [verdict.limit for verdict in found.broken] == [
        "board.qemu_m4.flash",
        "board.qemu_m4.ram",
    ]
    assert rows(found)["board.qemu_m4.flash"] == (6016, None, None)
    assert found.unchecked == ()
    never = compared(changed(boards=()), changed(boards=(REAL,)))
    assert never.broken == ()
    assert len(never.unchecked) == 2
    text = comment.render(Diff((never,), ()))
    assert "- qemu_m4: not measured, 2 limits not checked" in text.splitlines()


def test_parts_of_a_board_are_shown_where_one_changed() -> None:
    for head in (REPORT, changed(boards=(REAL,))):
        assert "flash by part" not in comment.render(Diff((compared(REPORT, head),), ()))
    alone = comment.render(Diff((compared(None, REPORT),), ()))
    assert "| qemu_m4 flash: weights | - | 4,000 | - |" in alone.splitlines()


def test_steps_of_another_recipe_are_said() -> None:
    notes = compared(REPORT, changed(steps=REPORT.steps[1:])).notes
    assert "prune_structured, quantize in the base, quantize here" in notes


def test_an_arena_is_told_by_what_is_alive() -> None:
    found = compared(REPORT, REPORT, Budget(size=SizeLimit(aot_arena=499)))
    (verdict,) = found.broken
    assert verdict.causes == ("conv:0 in place over x 400 bytes", "x 250 bytes")
    assert "over by 1 (0.2%). Alive at the peak: conv:0 in place" in comment.render(
        Diff((found,), ())
    )


def test_a_limit_that_broke_without_a_change_has_its_largest_causes() -> None:
    fewer = Budget(size=SizeLimit(macs=4000), board={"qemu_m4": BoardLimit(flash=6000)})
    causes = (
        ("conv 2,500 MACs", "classes 2,000 MACs"),
        (
            "weights of classes 3,000 bytes",
            "weights of conv 1,000 bytes",
            "kernels of conv 700 bytes",
        ),
    )
    assert tuple(each.causes for each in compared(REPORT, REPORT, fewer).broken) == causes
    assert tuple(each.causes for each in compared(HEAD, REPORT, fewer).broken) == causes


def test_a_share_has_the_sign_of_its_change() -> None:
    mse = dataclasses.replace(REPORT.accuracy[0], metric="mse", confusion=None)
    base, head = (
        changed(accuracy=(dataclasses.replace(mse, float=0.9, compressed=value),))
        for value in (0.8, 0.7)
    )
    found = compared(base, head, Budget(AccuracyLimit(max_drop=0)))
    (row,) = (row for row in found.rows if row.figure == "accuracy.max_drop")
    assert (row.base, row.delta, row.share) == pytest.approx((-0.1, -0.1, -1))


def test_a_surprising_saving_is_explained_by_what_shrank() -> None:
    tight = Budget(board={"qemu_m4": BoardLimit(flash=Bounds(least=7000))})
    (verdict,) = compared(HEAD, REPORT, tight).broken
    assert verdict.causes == ("weights of classes -1,200 bytes", "kernels of classes -77 bytes")
    text = comment.render(Diff((compared(HEAD, REPORT, tight),), ()))
    assert "under by 984 (14.1%). Causes: weights of classes -1,200 bytes" in text


def many(count: int, name: str) -> Report:
    """A report with `count` layers and symbols of long names."""
    symbols = tuple(symbol(f"{i} {name}", "weights", 1 + i, 0, i) for i in range(count))
    flash = dataclasses.replace(IMAGE.flash, weights=sum(each.flash for each in symbols))
    image = dataclasses.replace(
        IMAGE, flash=flash, symbols=(*(s for s in SYMBOLS if s.part != "weights"), *symbols)
    )
    row = dataclasses.replace(EMULATED, flash=flash.total, image=image, profile=())
    ops = tuple(operator(f"{i} {name}", "ADD", macs=i) for i in range(max(count, 3)))
    return changed(operators=ops, boards=(row,))


@pytest.mark.parametrize(
    ("count", "models", "left_out", "there"),
    [
        (10, 1, "", "by symbol"),
        (70, 3, "Symbols are left out, as they would be too long.", "by layer"),
        (900, 1, "Layers and symbols are left out, as they would be too long.", "flash by part"),
        (3, 150, "Tables are left out, as they would be too long.", "150 models"),
    ],
)
def test_a_long_comment_falls_back(count: int, models: int, left_out: str, there: str) -> None:
    head = many(count, "a long name " * 9)
    base = dataclasses.replace(
        head,
        operators=tuple(dataclasses.replace(op, macs=op.macs + 1) for op in head.operators),
        boards=many(0, "").boards,
    )
    named = {f"model {i}": dataclasses.replace(head, name=f"model {i}") for i in range(models)}
    found = diff(dict.fromkeys(named, base), named, limits=lambda _: LIMITS.limits())
    text = comment.render(found)
    well_formed(text)
    assert there in text
    assert left_out in text.splitlines()
    assert ("left out" in text) == bool(left_out)


def well_formed(text: str) -> None:
    """What a comment is whatever the models hold: short enough, whole tables, no foreign markup."""
    lines = text.split("\n")
    assert len(text) <= comment.LIMIT
    assert lines[0] == comment.MARKER
    assert text.count(comment.MARKER) == 1
    assert lines.count("<details>") == lines.count("</details>")
    assert not re.sub(
        r"</?details>|</?summary>|<br>|^<!-- edgecompress-footprint -->", "", text
    ).count("<") - len(re.findall(r"<=", text))
    assert not re.search(r"[@#][0-9A-Za-z]", text)
    assert not re.search(r"://|www\.", text, re.I)
    width = 0
    for line in lines:
        assert line.isprintable() or "\u200b" in line
        if not line.startswith("| "):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
        assert width in (0, cells)
        width = cells


NAMES = st.text(max_size=30) | st.sampled_from(["<b>", "a|b", "`x`", "@me", "\\|", "x\ny", "-->"])
COUNTS = st.integers(0, 10**9)


@st.composite
def images(draw: st.DrawFn, operators: int) -> Attribution:
    """An image whose symbols add up to its parts."""
    part = st.sampled_from([field.name for field in dataclasses.fields(FlashParts)])
    places = st.sets(st.sampled_from(range(operators)), max_size=3) if operators else st.just(())
    drawn = draw(st.lists(st.tuples(NAMES, part, st.integers(0, 9999), places), max_size=6))
    symbols = [SymbolRow(name, "x.o", part, n, 0, tuple(ops)) for name, part, n, ops in drawn]
    sums = dict.fromkeys((field.name for field in dataclasses.fields(FlashParts)), 0)
    for each in symbols:
        sums[each.part] += each.flash
    return Attribution(FlashParts(**sums), RamParts(0, 0, 0, 0, 0), tuple(symbols), None, None)


@st.composite
def boards(draw: st.DrawFn, name: str, operators: int) -> BoardRow:
    image = draw(st.none() | images(operators))
    timing = draw(
        st.none()
        | st.builds(
            Timing,
            unit=st.sampled_from(["instructions", "cycles", "nanoseconds"]),
            source=st.sampled_from(["plugin", "DWT"]),
            per_inference=st.integers(1, 10**9),
            spread=st.just(0),
            runs=st.just(1),
            clock_hz=st.just(10**6),
            conditions=NAMES,
            cycles_lo=st.none(),
            cycles_hi=st.none(),
        )
    )
    profile = draw(st.booleans()) and timing is not None
    return BoardRow(
        board=name,
        backend=draw(st.sampled_from(["aot", "tflm"])),
        flash=draw(st.none() | COUNTS) if image is None else image.flash.total,
        ram=draw(st.none() | COUNTS) if image is None else image.ram.total,
        arena=draw(st.none() | COUNTS),
        stack=draw(st.none() | COUNTS),
        timing=timing,
        outputs=None,
        cost=draw(st.none() | st.builds(Cost, COUNTS, COUNTS, st.just("qemu_m4"))),
        image=image,
        profile=tuple(OpCost("", n) for n in range(operators)) if profile else (),
        note=draw(st.none() | NAMES),
    )


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """Any valid report, judged by a budget on half of what there is."""
    count = draw(st.integers(0, 3))
    ops = [operator(draw(NAMES), "ADD", macs=draw(COUNTS)) for _ in range(count)]
    shares = st.none() | st.floats(0, 1)
    rows = [
        AccuracyRow(
            split, draw(NAMES), draw(st.sampled_from(["top1", "auc", "mse"])),
            draw(st.integers(1, 3)), draw(shares), draw(shares), draw(shares), None, None,
        )
        for split in draw(st.lists(NAMES, max_size=2, unique=True))
    ]  # fmt: skip
    change = st.builds(Change, st.none() | COUNTS, st.none() | COUNTS)
    report = changed(
        name=draw(NAMES),
        tools=draw(st.dictionaries(NAMES, NAMES, max_size=2)),
        operators=tuple(ops),
        density=(),
        accuracy=tuple(rows),
        size=dataclasses.replace(
            REPORT.size, tflite=draw(change), macs=draw(change), arena=draw(change)
        ),
        boards=tuple(
            draw(boards(name, count))
            for name in draw(
                st.lists(st.sampled_from(["qemu_m4", "qemu_m0"]) | NAMES, unique=True, max_size=3)
            )
        ),
        budget=(),
    )
    limits = [
        Verdict(name, None, draw(st.floats(0, 10**6)), 0.0, None)
        for name in ("size.tflite", "size.macs", "accuracy.max_drop", "board.qemu_m4.flash")
    ]
    limits += [Verdict("accuracy.min", draw(st.floats(0, 1)), None, 0.0, None)]
    return dataclasses.replace(report, budget=tuple(limits))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(base=reports() | st.none(), head=reports())
def test_any_two_reports_give_a_comment_that_is_well_formed(
    base: Report | None, head: Report
) -> None:
    was = {} if base is None else {head.name: dataclasses.replace(base, name=head.name)}
    found = diff(was, {head.name: head}, limits=lambda report: report.budget)
    well_formed(comment.render(found))
    assert json.loads(found.to_json())["ok"] is found.ok
    assert len(list(csv.reader(found.to_csv().splitlines()))) >= 1
    assert Report.from_json(head.to_json()) == head


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(base=reports(), head=reports())
def test_differences_add_up(base: Report, head: Report) -> None:
    found = model(base, head, limits=head.budget)
    by_figure = {row.figure: row for row in found.rows}
    for row in head.boards:
        flash = by_figure.get(f"board.{row.key}.flash")
        parts = [each for each in found.rows if each.figure.startswith(f"board.{row.key}.flash.")]
        if flash is not None and parts and all(each.delta is not None for each in parts):
            assert sum(each.delta or 0 for each in parts) == flash.delta
            grown = [each for each in found.symbols if each.figure == flash.figure]
            assert sum(each.delta for each in grown) == flash.delta
    macs = [sum(op.macs for op in report.operators) for report in (base, head)]
    grown = [each for each in found.layers if each.figure == "size.macs"]
    assert sum(each.delta for each in grown) == macs[1] - macs[0]
    for each in found.rows:
        assert each.delta is None or (each.base or 0) + each.delta == pytest.approx(each.head)
