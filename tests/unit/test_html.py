"""The pages as text: what they are made of, what they say, what they keep out."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest

from edgecompress import cli
from edgecompress.report import AccuracyRow, Change, Report
from edgecompress.report.boards import TOO_LARGE
from edgecompress.report.figures import ordered, shown, words
from edgecompress.report.history import entry
from edgecompress.report.html import boards, compare, compare_page, page, render, trade, trend
from tests.reports import EMULATED, IMAGE, REPORT, changed, operator

HTML = Path(page.__file__).parent


def views(text: str) -> list[dict[str, object]]:
    """The data of each figure of a page."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', text)
    return [json.loads(one) for one in found]


def test_the_chart_library_is_the_pinned_one() -> None:
    code = (HTML / "echarts" / "echarts.min.js").read_bytes()
    assert hashlib.sha256(code).hexdigest() == page.ECHARTS_SHA256
    assert f'"{page.ECHARTS}"'.encode() in code
    script = (HTML.parents[2] / "scripts" / "echarts.sh").read_text()
    assert f"version={page.ECHARTS}\n" in script and f"sha256={page.ECHARTS_SHA256}\n" in script
    for name in ("LICENSE", "LICENSE-d3", "NOTICE"):
        assert (HTML / "echarts" / name).is_file()


def test_a_page_allows_its_own_scripts_alone() -> None:
    text = render(REPORT)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    allowed = policy[1].replace("&#39;", "'")
    assert allowed.startswith("default-src 'none'; script-src 'sha256-")
    assert re.findall(r"sha256-([^']*)", allowed) == hashes
    assert len(hashes) == 3
    assert not re.search(r'(src|href)="(?!#|data:,)', text.partition("<body>")[0])


def test_the_same_report_is_the_same_page() -> None:
    assert render(REPORT) == render(Report.from_json(REPORT.to_json()))


def test_a_report_is_saved_with_its_page(tmp_path: Path) -> None:
    REPORT.save(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(REPORT)


def test_names_cannot_leave_their_place() -> None:
    evil = "</script><img onerror=x>&\u2028\ud800"
    text = render(changed(name=evil, labels=(evil,) * 3, commit=evil))
    text.encode()
    assert "<img onerror" not in text
    assert "\u2028" not in text
    assert "&lt;/script&gt;&lt;img onerror=x&gt;&amp;??" in text
    assert text.count("</script>") == render(REPORT).count("</script>")
    heat = next(one for one in views(text) if one["views"][0]["kind"] == "heat")  # type: ignore[index]
    assert heat["views"][0]["names"] == ["</script><img onerror=x>&??"] * 3  # type: ignore[index]


def test_what_was_not_measured_is_not_drawn() -> None:
    none = Change(None, None)
    size = dataclasses.replace(REPORT.size, arena=none, aot_arena=Change(None, 500))
    first, _, *_ = views(render(changed(size=size)))
    assert first["views"][0]["names"] == ["parameters", "MACs per inference", ".tflite bytes"]  # type: ignore[index]
    bare = dataclasses.replace(REPORT.size, **dict.fromkeys(("params", "macs", "tflite"), none))
    bare = dataclasses.replace(bare, arena=none, aot_arena=none)
    text = render(changed(size=bare, boards=(), accuracy=(), memory=None))
    assert views(text) == []
    table = text[text.index("<caption>Before and after") :].partition("</table>")[0]
    assert table.count(">not measured") == 10


def test_many_classes_are_told_by_their_mistakes() -> None:
    size = 41
    table = [[9 * (i == j) for j in range(size)] for i in range(size)]
    table[3][7], table[5][0] = 4, 6
    count = sum(map(sum, table))
    row = AccuracyRow(
        "test", "", "top1", count, 1.0, 1.0, 1.0, None, None, tuple(tuple(line) for line in table)
    )
    text = render(changed(accuracy=(row,), labels=()))
    assert '"heat"' not in text
    told = text[text.index("The most frequent mistakes of 41 classes") :]
    told = told[: told.index("</table>")]
    assert re.findall(r"(?:th|td)[^>]*>(\d+)\n?</", told) == ["5", "0", "6", "3", "7", "4"]


def test_the_front_has_what_nothing_beats() -> None:
    points = [
        {"group": "a", "at": at} for at in ([10, 0.9], [8, 0.8], [9, 0.7], [12, 0.95], [11, 0.9])
    ]
    assert trade.front(points, less=False) == [[[8, 0.8], [10, 0.9], [12, 0.95]]]
    assert trade.front(points, less=True) == [[[8, 0.8], [9, 0.7]]]
    assert trade.front([*points[:1], {"group": "b", "at": [1, 1.0]}], less=False) == []


def test_runs_at_the_same_place_are_one_point() -> None:
    chart = trade.chart([(name, REPORT, "after") for name in "ab"])
    assert chart is not None
    assert chart.views[0]["points"] == [{"name": "a, b", "group": "tiny", "at": [8000, 0.93]}]
    assert trade.chart([("a", REPORT, "after")]) is None


def test_figures_have_names() -> None:
    assert words("size.aot_arena") == "arena bytes (C)"
    assert words("accuracy.test.noisy") == "accuracy test.noisy"
    assert words("accuracy.test", "auc") == "auc test"
    assert words("board.qemu_m4-tflm.ram") == "qemu_m4-tflm RAM bytes"
    assert words("board.qemu_m4.flash.libc") == "qemu_m4 flash: libc"
    assert words("board.qemu_m4.flash.data") == "qemu_m4 flash: initial values of RAM"
    assert words("board.qemu_m4.instructions") == "qemu_m4 instructions"
    assert [shown(0.5, unit) for unit in ("top1", "auc", "mse")] == ["50.00%", "0.5000", "0.5"]
    assert [shown(1234.0, unit) for unit in ("bytes", "")] == ["1,234"] * 2
    keys = ["board.a.flash", "accuracy.x", "board.b.flash", "size.macs", "accuracy.x"]
    assert ordered(keys) == ["size.macs", "accuracy.x", "board.a.flash", "board.b.flash"]


def best(runs: compare_page.Runs) -> dict[str, list[int]]:
    """Row -> the columns that are marked as its best."""
    table = compare_page.table(runs, parts=True)
    marks = {row[0].text: [i for i, cell in enumerate(row) if cell.state] for row in table.rows}
    return {name: columns for name, columns in marks.items() if columns}


def small(**changes: object) -> Report:
    """REPORT, smaller and less accurate."""
    size = dataclasses.replace(REPORT.size, tflite=Change(20000, 5000))
    first = dataclasses.replace(REPORT.accuracy[0], compressed=0.9, **changes)
    return changed(size=size, accuracy=(first, *REPORT.accuracy[1:]))


def test_the_best_of_a_row_is_marked() -> None:
    runs = [("a", REPORT), ("b", small()), ("c", REPORT)]
    assert best(runs) == {".tflite bytes": [2], "accuracy test": [1, 3]}
    assert compare_page.notes(runs) == []


def test_other_models_are_not_ranked_against_each_other() -> None:
    runs = [("a", REPORT), ("b", changed(small(), name="other"))]
    assert best(runs) == {}
    assert compare_page.notes(runs) == [
        "Different models (tiny, other): each is ranked among its own runs alone."
    ]
    assert best([*runs, ("c", small())]) == {".tflite bytes": [3], "accuracy test": [1]}


def test_other_samples_or_metrics_are_not_ranked() -> None:
    other = small(source="another set")
    assert best([("a", REPORT), ("b", other)]) == {".tflite bytes": [2]}
    (note,) = compare_page.notes([("a", REPORT), ("b", other)])
    assert note.startswith("tiny, accuracy test: not ranked, it is top1")
    assert "held out against top1" in note and "another set" in note
    auc = small(metric="auc", confusion=None)
    assert best([("a", REPORT), ("b", auc)]) == {".tflite bytes": [2]}
    assert len(compare_page.notes([("a", REPORT), ("b", auc)])) == 1


def test_a_comparison_tells_the_broken_limits() -> None:
    over = dataclasses.replace(REPORT.budget[0], measured=9000.0, causes=("weights of conv",))
    runs = [("a", REPORT), ("b", changed(budget=(over, REPORT.budget[1])))]
    text = compare(runs)
    assert "within budget (2 limits)" in text and "over budget: 1 of 2 limits" in text
    assert "size.tflite is 9,000, must be &lt;= 8,192" in text
    assert "weights of conv" in text
    assert "No limit is broken" in compare(runs[:1] * 2)


def test_whether_an_image_fits_is_what_its_board_says() -> None:
    full = dataclasses.replace(EMULATED, note=f"{TOO_LARGE}: no RAM is left for the stack")
    alone = dataclasses.replace(full, image=None)
    known = {row[0].text: row[1].text for row in boards.table(REPORT.boards).rows}
    assert known == {"nano33": "not taken apart", "pico": "perhaps", "qemu_m4": "fits"}
    assert [row[1].text for row in boards.table((full, alone)).rows] == ["no", "no"]


def test_the_budget_is_told_with_what_room_there_is() -> None:
    first = dataclasses.replace(REPORT.budget[0], least=None, most=8000.0)
    budget = (
        dataclasses.replace(first, measured=7000.0),
        dataclasses.replace(first, measured=9000.0),
        dataclasses.replace(first, least=7500.0, measured=7000.0),
        dataclasses.replace(first, measured=None),
    )
    text = render(changed(budget=budget))
    told = text[text.index("<caption>Limits of the budget") :].partition("</table>")[0]
    assert re.findall(r"<td[^>]*>([^<]*?)\n?</td>", told) == [
        *("over budget", "9,000", "&lt;= 8,000", "-1,000", ""),
        *("under its least", "7,000", "&lt;= 8,000 and &gt;= 7,500", "-500", ""),
        *("not measured", "not measured", "&lt;= 8,000", "not measured", ""),
        *("ok", "7,000", "&lt;= 8,000", "1,000", ""),
    ]
    assert "size.<wbr>tflite" in told


def test_layers_stand_side_by_side() -> None:
    fewer = changed(operators=(operator("other", "CONV_2D"), *REPORT.operators[1:]))
    bare = changed(fewer, boards=())
    text = compare([("a", REPORT), ("b", fewer), ("c", bare)])
    told = text[text.index("<caption>Layers, qemu_m4 flash bytes") :].partition("</table>")[0]
    cells = re.findall(r"<t[hd] (?!scope=.col)[^>]*>(?:<span[^>]*>)?([^<]*?)\n?<", told)
    owned = [f"{one.total:,}" for one in IMAGE.operators(3)]
    assert cells == [
        *("conv", owned[0], "", "not measured"),
        *("pool", owned[1], owned[1], "not measured"),
        *("classes", owned[2], owned[2], "not measured"),
        *("other", "", owned[0], "not measured"),
    ]


def test_compare_at_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    REPORT.save(tmp_path / "build" / "tiny")
    over = dataclasses.replace(REPORT.budget[0], most=4000.0, measured=5000.0)
    changed(small(), budget=(over,)).save(tmp_path / "build" / "tiny-50")
    assert cli.main(["compare", "tiny", "build/tiny-50", "tiny"]) == 0
    told = capfd.readouterr()
    lines = told.out.splitlines()
    assert lines[0].split()[-1] == "(2)" and "tiny-50" in lines[0]
    sizes = next(line for line in lines if line.startswith(".tflite bytes"))
    assert sizes.split()[2:] == ["8,000", "5,000", "*", "8,000"]
    assert not any("weights" in line for line in lines)
    assert "* the best of the row" in told.out
    assert lines[-1].startswith("OVER tiny-50: size.tflite is 5,000, must be <= 4,000")
    assert "in a browser: build/compare.html" in told.err
    made = (tmp_path / "build" / "compare.html").read_text(encoding="utf-8")
    assert "<title>build/tiny/report.json, tiny-50, build/tiny/report.json (2): compared" in made


@pytest.mark.parametrize(
    ("runs", "code", "said"),
    [
        (["tiny"], 2, "compare: tiny alone; give two runs or more"),
        (["tiny", "gone"], 1, "build/gone/report.json: no such report"),
    ],
)
def test_compare_wants_two_reports(
    runs: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    REPORT.save(tmp_path / "build" / "tiny")
    assert cli.main(["compare", *runs]) == code
    assert said in capfd.readouterr().err
    assert not (tmp_path / "build" / "compare.html").exists()


def test_a_trend_of_several_models_is_relative() -> None:
    entries = [
        entry(changed(size=dataclasses.replace(REPORT.size, tflite=Change(None, size)), name=name),
              date="2026-03-01", commit=commit)
        for commit, sizes in (("c1", (100, 5000)), ("c2", (90, 5500)))
        for name, size in zip(("a", "b"), sizes, strict=True)
    ]  # fmt: skip
    (figure,) = views(trend(entries))
    (tflite,) = [one for one in figure["views"] if one["label"] == ".tflite bytes"]  # type: ignore[attr-defined]
    assert tflite["unit"] == "%"
    assert [one["values"] for one in tflite["series"]] == [[100.0, 90.0], [100.0, 110.0]]
    (figure,) = views(trend(entries[::2]))
    (tflite,) = [one for one in figure["views"] if one["label"] == ".tflite bytes"]  # type: ignore[attr-defined]
    assert tflite["series"][0]["values"] == [100, 90] and tflite["unit"] == ""


def test_a_trend_of_nothing_says_so() -> None:
    text = trend([])
    assert views(text) == [] and "The history has no figures yet" in text
