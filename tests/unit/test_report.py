"""Report: strict JSON round trip, budget verdicts, Markdown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgecompress.artifact import Step
from edgecompress.errors import BudgetExceeded
from edgecompress.report import (
    AccuracyRow,
    Change,
    Difference,
    Proof,
    Report,
    Size,
    Verdict,
    markdown,
)
from edgecompress.report.report import ReportError
from tests.reports import REPORT as FULL
from tests.reports import changed, operator

PROOF = Proof("reference 1", "subject 2", 64, 768, 768, 0, 0, 0)
REPORT = Report(
    name="kws",
    sha256="ab" * 32,
    tools={"tensorflow": "2.19.1", "tflite-micro": "0.1"},
    commit=None,
    steps=(Step("quantize", {"mode": "int8"}, {"tflite_bytes": 40000}),),
    size=Size(
        Change(200, 100),
        Change(1000, 500),
        Change(90000, 40000),
        Change(None, 20000),
        Change(None, 9000),
    ),
    accuracy=(AccuracyRow("test", "", "top1", 100, 0.95, 0.94, 0.93, 0.9, 10),),
    proof=PROOF,
    operators=(
        operator("conv", "CONV_2D", sqnr_db=35.5),
        operator("odd", "ADD", sqnr_db=None, max_abs=None),
    ),
    unsupported=(),
    aot_unsupported=("CUMSUM in layer y",),
)


def test_dense_stands_beside_sparse() -> None:
    """And a row of no operator is refused."""
    text = markdown.render(FULL)
    assert "## Dense against sparse" in text and "a file of 640 bytes, which no micro" in text
    row = "| conv | 67% | 9 | ec_conv_sparse_s8 | 300 | 500 | 9,000 | 12,000 |"
    assert row in text.splitlines()
    assert "Dense against sparse" not in markdown.render(changed(density=(), gzip=None))
    with pytest.raises(ReportError, match="^density: a row is of none of 3 operators$"):
        changed(density=(dataclasses.replace(FULL.density[0], op=3),))


def test_training_and_promises_are_told() -> None:
    training = {
        "metric": "top1", "rows": 50, "before": 0.5, "after": 0.75, "epochs": 7, "best_epoch": 6,
        "losses": [1.0], "validations": [0.75],
    }  # fmt: skip
    promise = {
        "stage": "sparsify", "layer": "conv", "what": "zeros", "promised": 120, "found": 121,
        "at_least": True,
    }  # fmt: skip
    steps = (
        Step("finetune", {}, {"training": training}),
        Step("promises", {}, {"promises": [promise]}),
    )
    lines = markdown.render(changed(steps=steps)).splitlines()
    assert "| finetune | 7 | 6 | 50 | top1 | 0.5 | 0.75 |" in lines
    assert "| sparsify | conv | zeros | at least 120 | 121 |" in lines


def test_groups_of_the_last_round_count_from_the_first() -> None:
    """A group of 8 that lost 2 before and loses 1 now has lost 3 of 8."""
    rounds = [
        Step(
            "prune_structured",
            {"score": "l2", "sizes": {"a": 8}},
            {"plan": {"groups": [{"name": "a", "size": size, "drop": drop, "protected": None}]}},
        )
        for size, drop in ((8, [0, 1]), (6, [5]))
    ]
    lines = markdown.render(changed(steps=tuple(rounds))).splitlines()
    assert "| a | 8 | 3 | 38% | l2 |  |" in lines
    assert not any(line.startswith("| a | 8 | 2 |") for line in lines)


def test_json_round_trip(tmp_path: Path) -> None:
    at = Difference("ADD", "sum", 1, 10, 2.0)
    proof = dataclasses.replace(PROOF, exact=767, mismatch=1, max_diff=2, differs_at=at)
    report = dataclasses.replace(REPORT, proof=proof, commit="c0ffee", unsupported=("CUMSUM",))
    kept, open_ = limit("size.tflite", 49152.0, 40000.0), limit("board.qemu_m4.ram", 5.0, None)
    judged = dataclasses.replace(report, budget=(kept,), unchecked=(open_,))
    judged.save(tmp_path)
    assert Report.read(tmp_path) == Report.read(tmp_path / "report.json") == judged
    assert json.loads((tmp_path / "report.json").read_text())["schema"] == 3
    assert (tmp_path / "report.md").read_text() == markdown.render(judged)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("size"), "missing key size"),
        (lambda t: t.update(extra=1), "unknown key extra; allowed: accuracy, .*"),
        (lambda t: t.update(schema=4), "schema = 4: write one of 3"),
        (lambda t: t.update(schema=1), r"written by an older edgecompress \(schema 1, this one .*"),
        (lambda t: t["size"]["params"].update(after="9"), "size.params.after = '9': write a .*"),
        (lambda t: t["accuracy"][0].pop("metric"), r"missing key accuracy\[0\].metric"),
        (lambda t: t["accuracy"][0].update(metric="f1"), r"accuracy\[0\].metric = 'f1': write .*"),
        (lambda t: t.update(steps=None), "steps = None: write a list of a table"),
        (lambda t: t.pop("schema"), "missing key schema"),
        (lambda t: t.update(schema=True), "schema = True: write one of 3"),
        (lambda t: t.pop("budget"), "missing key budget"),
        (lambda t: t["proof"].pop("differs_at"), "missing key proof.differs_at"),
        (lambda t: t["size"]["arena"].update(before=-1), "size.arena.before = -1: it must be 0 .*"),
        (
            lambda t: t["accuracy"][0].update(samples=0),
            r"accuracy\[0\].samples = 0: it must be 1 .*",
        ),
        (
            lambda t: t["accuracy"][0].update(tflm=None),
            r"accuracy\[0\].tflm and tflm_samples: one .*",
        ),
        (
            lambda t: t["accuracy"][0].update(tflm_samples=None),
            r"accuracy\[0\].tflm and tflm_samples: one is given without the other",
        ),
        (
            lambda t: t["accuracy"][0].update(tflm_samples=101),
            r"accuracy\[0\].tflm_samples = 101: more than 100 rows",
        ),
        (
            lambda t: t["accuracy"][0].update(compressed=95.0),
            r"accuracy\[0\].compressed = 95.0: top1 is from 0 to 1",
        ),
        (lambda t: t["proof"].update(samples=0), "proof.samples = 0: it must be 1 or more"),
        (
            lambda t: t["proof"].update(exact=767),
            r"proof.elements = 768: exact \+ off_by_one \+ mismatch is 767",
        ),
        (
            lambda t: t["proof"].update(exact=769, mismatch=-1),
            "proof.mismatch = -1: it must be 0 or more",
        ),
        (
            lambda t: t["proof"].update(max_diff=1),
            "proof.max_diff = 1: 768 of 768 elements are equal",
        ),
        (
            lambda t: t["proof"].update(exact=767, off_by_one=1),
            "proof.max_diff = 0: 767 of 768 elements are equal",
        ),
        (
            lambda t: t["proof"].update(
                differs_at=dict(operator="A", layer="a", mismatch=3, elements=2, max_diff=1)
            ),
            "proof.differs_at.mismatch = 3: more than 2 elements",
        ),
    ],
)
def test_reading_is_strict(edit: object, message: str) -> None:
    table = json.loads(REPORT.to_json())
    edit(table)  # type: ignore[operator]
    with pytest.raises(ReportError, match=f"^report.json: {message}$"):
        Report.from_json(json.dumps(table))


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_figure_that_is_no_number_is_refused(figure: str) -> None:
    text = REPORT.to_json()
    for good in ("0.95", '"int8"'):  # of the schema, and of a step's parameters
        assert good in text
        with pytest.raises(ReportError, match=f"^here: not JSON \\({figure} is no finite number"):
            Report.from_json(text.replace(good, figure), where="here")


def test_a_figure_that_is_no_number_is_not_written() -> None:
    rows = (operator("conv", "CONV_2D", sqnr_db=None, max_abs=float("inf")),)
    with pytest.raises(ValueError, match="JSON compliant"):
        dataclasses.replace(REPORT, operators=rows).to_json()


def test_a_missing_or_damaged_report_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ReportError, match="no such report; run edgecompress compress first"):
            Report.read(folder)
    with pytest.raises(ReportError, match="^report.json: not JSON"):
        Report.from_json("{")
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ReportError, match=rf"^{path}: cannot be read \('utf-8' codec .*; run comp"):
        Report.read(tmp_path)
    for levels in (60, 99999):
        path.write_text("[" * levels + "]" * levels)
        with pytest.raises(ReportError, match=f"^{path}: tables and lists lie deeper than 50 leve"):
            Report.read(tmp_path)


def limit(
    name: str, most: float | None, measured: float | None, *causes: str, least: float | None = None
) -> Verdict:
    return Verdict(name, least, most, 0.0, measured, causes)


def test_every_broken_limit_is_listed_with_its_causes() -> None:
    judged = dataclasses.replace(
        REPORT,
        budget=(
            limit("size.macs", 499, 500, "conv 300 MACs", "end 200 MACs"),
            limit("size.params", 100, 100, "conv 100 parameters"),
            limit("size.tflite", None, 30000, least=40000),
            limit("accuracy.max_drop", 0.01, 0.02),
            limit("board.qemu_m4.flash", 1, None),
        ),
    )
    with pytest.raises(BudgetExceeded) as caught:
        judged.check()
    assert str(caught.value) == (
        "kws: over budget: size.macs is 500, must be <= 499: over by 1 (0.2%) (largest: conv 300"
        " MACs, end 200 MACs); size.tflite is 30,000, must be >= 40,000: under by 10,000 (25.0%);"
        " accuracy.max_drop is 0.02, must be <= 0.01: over by 0.01 (100.0%);"
        " board.qemu_m4.flash is not measured, must be <= 1"
    )
    assert caught.value.exit_code == 3
    dataclasses.replace(judged, budget=judged.budget[1:2]).check()


@pytest.mark.parametrize("name", ["size.flash", "board.flash", "board.a b.flash", "accuracy.test"])
def test_a_verdict_is_on_a_limit_that_there_is(name: str) -> None:
    with pytest.raises(ReportError, match=f"^limit = '{name}': no limit of a budget has that name"):
        limit(name, 1, 1)


def test_operators_that_are_not_there_are_refused() -> None:
    with pytest.raises(ReportError, match="^boards: qemu_m4: a profile of 2 operators is wanted$"):
        changed(operators=FULL.operators[:2])
    (row,) = (row for row in FULL.boards if row.profile)
    with pytest.raises(ReportError, match="^boards: qemu_m4: a symbol is for none of 2 operators$"):
        changed(operators=FULL.operators[:2], boards=(dataclasses.replace(row, profile=()),))


def test_drop_is_positive_when_the_metric_worsens() -> None:
    row = REPORT.accuracy[0]
    assert row.drop == pytest.approx(0.02)
    assert dataclasses.replace(row, metric="mse").drop == pytest.approx(-0.02)
    assert dataclasses.replace(row, float=None).drop is None


def test_table_rows() -> None:
    assert markdown.rows(REPORT) == [
        ("parameters", "200", "100", "-50.0%"),
        ("MACs per inference", "1,000", "500", "-50.0%"),
        (".tflite bytes", "90,000", "40,000", "-55.6%"),
        ("arena bytes (TFLM)", "not measured", "20,000", ""),
        ("arena bytes (C)", "not measured", "9,000", ""),
        ("top1 test (100 samples)", "95.00%", "93.00%", "-2.00 points"),
    ]


def test_the_proof_says_equal_only_when_every_bit_is() -> None:
    assert markdown.proof_line(REPORT).endswith("64 samples, 768 outputs, all equal.")
    at = Difference("CONV_2D", "conv", 3, 100, 2)
    proof = dataclasses.replace(PROOF, exact=760, off_by_one=5, mismatch=3, max_diff=2)
    broken = dataclasses.replace(REPORT, proof=dataclasses.replace(proof, differs_at=at))
    assert markdown.proof_line(broken) == (
        "subject 2 differs from reference 1: 64 samples, 768 outputs, 760 equal, 5 off by one,"
        " 3 further (largest difference 2); first at CONV_2D of layer conv: 3 of 100 elements by"
        " up to 2."
    )
    refused = dataclasses.replace(REPORT, proof=None, unsupported=("CUMSUM in layer x",))
    assert markdown.proof_line(refused) == "TFLM cannot run this model: CUMSUM in layer x"


def test_markdown_has_the_budget_the_stages_and_the_tools() -> None:
    judged = dataclasses.replace(
        REPORT,
        budget=(
            limit("size.arena", 1, 20000, "conv 150 bytes"),
            limit("size.tflite", 40000, 40000, "conv 116 bytes"),
        ),
        unchecked=(limit("board.pico.flash", 1, None), limit("board.pico.ram", 1, None)),
    )
    over = "OVER size.arena is 20,000, must be <= 1: over by 19,999 (1,999,900.0%)"
    assert markdown.budget_lines(judged) == [
        f"{over} (largest: conv 150 bytes)",
        "ok   size.tflite is 40,000, must be <= 40,000",
        "pico: not measured, 2 limits not checked",
    ]
    text = markdown.render(judged)
    for line in (
        f"- {over} (largest: conv 150 bytes)",
        "- pico: not measured, 2 limits not checked",
        "| test | 95.00% | 94.00% | not measured | 93.00% | 90.00% (10) |",
        "- **quantize**: mode int8 → tflite_bytes 40000",
        "- tensorflow: 2.19.1",
        markdown.proof_line(judged),
    ):
        assert line in text.splitlines()
    assert "## Budget" not in markdown.render(REPORT)


def test_markdown_shows_layers_that_could_not_be_matched() -> None:
    text = markdown.render(REPORT)
    assert "| conv | CONV_2D | 1x5x5x4 | 2,500 | 116 | 8 | 20.0% | 100 | 35.5 | 0.1 |" in text
    assert "| odd | ADD | 1x5x5x4 | 2,500 | 116 | 8 | 20.0% | 100 | not matched |  |" in text


def test_markdown_tells_of_groups_repaired_layers_and_rounded_weights() -> None:
    repaired = {"layer": "back", "groups": ["inner"], "removed": 2, "channels": 5}
    repaired |= {"predicted": 0.12345, "measured": None, "reason": ""}
    verdicts = (
        {"verdict": "trusted", "spread": 0.125, "shift": 0.034},
        {"verdict": "trusted", "spread": 0.2, "shift": None},
        {"verdict": "not checked", "spread": None, "shift": None},
        {"verdict": "not trusted", "spread": 0.9, "shift": None, "reason": "not normal"},
    )
    groups = [
        {"name": "inner", "size": 5, "drop": [1, 3], "protected": None},
        {"name": "head", "size": 3, "drop": [], "protected": "output of the model"},
    ]
    rounded = {"layer": "back", "weight": "kernel", "bits": 4, "rule": "squant", "error": 0.01}
    steps = (
        Step(
            "prune_structured",
            {"score": "l2", "repair": "udfc"},
            {
                "plan": {"unknown": "error", "groups": groups},
                "repair": [{**repaired, **row} for row in verdicts],
            },
        ),
        Step("quantize", {"mode": "int8"}, {"layers": [rounded]}),
    )
    text = markdown.render(dataclasses.replace(REPORT, steps=steps))
    assert "| inner | 5 | 2 | 40% | l2 |  |" in text
    assert "| head | 3 | 0 | 0% |  | output of the model |" in text
    assert "## Repair by layer (udfc)" in text
    for verdict in (
        "trusted: spread 0.12, means moved 3%",
        "trusted: spread 0.20",
        "not checked",
        "not trusted: not normal",
    ):
        assert f"| back | 5 channels | 2 (inner) | 0.123 | not known | {verdict} |" in text
    assert "| back | kernel | 4 | squant | 0.01 |" in text
    assert "## Channels by group" not in markdown.render(REPORT)


def test_notes_tell_what_a_run_without_data_does_not_know() -> None:
    step = Step("quantize", {}, {"estimated_input_range": [-1.5, 2.25]})
    report = dataclasses.replace(REPORT, accuracy=(), steps=(step,))
    first, second = markdown.notes(report)
    assert first == "Accuracy: not measured, as no data was given (--data my.npz)."
    assert second.startswith("The inputs are taken to lie in -1.5 to 2.25, estimated")
    assert markdown.notes(REPORT) == []
    assert second in markdown.render(report)


def test_markdown_takes_images_apart() -> None:
    lines = markdown.render(FULL).splitlines()
    for line in (
        "| flash: weights | 4,000 |",
        "| flash: other constants | 301 |",
        "| flash | 6,016 |",
        "| RAM: arena | 500 |",
        "| RAM of the board | 16,384 |",
        "| conv | CONV_2D | 1,951 | 6,000 |",
        "| qemu_m4 | w_1 | weights | model.o | 3,000 | 0 |",
        "- pico: not built: its platform cannot be had here",
    ):
        assert lines.count(line) == 1
    assert lines.count("<details>") == lines.count("</details>") == 3
    assert "<details>" not in markdown.render(REPORT)


def test_names_out_of_models_are_no_markup() -> None:
    name = "a|b`c<img src=x>\n@me _x_ [u](http://x) #1"
    said = "a\\|b\\`c&lt;img src=x&gt;?@\u200bme \\_x\\_ \\[u\\](http:/\\/x) #\u200b1"
    rows = (operator(name, "ADD"),)
    text = markdown.render(dataclasses.replace(REPORT, name=name, operators=rows))
    assert f"# {said}" in text.splitlines()
    assert f"| {said} | ADD | 1x5x5x4 |" in text
    assert "<img" not in text


def test_a_line_for_each_board_and_what_else_there_is_to_know() -> None:
    assert markdown.board_lines(FULL) == [
        "nano33 (aot): flash 90,000 bytes, RAM 46,000 bytes; 12,000 cycles per inference",
        "pico (aot): not measured",
        "pico: not built: its platform cannot be had here",
        "qemu_m4 (aot): flash 6,016 bytes, RAM 576 bytes, stack 320 bytes; 9,000 instructions per"
        " inference",
    ]
