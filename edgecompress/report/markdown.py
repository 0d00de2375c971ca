"""Report -> the rows of its table, and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.artifact import Step
from edgecompress.report import memory_map, parts, stages
from edgecompress.report.boards import BoardRow, Timing
from edgecompress.report.figures import shown, words
from edgecompress.report.memory_map import MemoryMap
from edgecompress.report.operators import OperatorRow
from edgecompress.report.report import AccuracyRow, Change, Proof, Report, Verdict
from edgecompress.report.text import escaped
from edgecompress.vocabulary import Metric

Row = tuple[str, str, str, str]
HEADINGS: Row = ("", "before", "after", "change")
NONE = "not measured"
LONG = 24
"""Steps above which the drawing of the memory plan is folded away."""
BOARD_HEADINGS = (
    "board",
    "backend",
    "flash bytes",
    "RAM bytes",
    "arena bytes",
    "stack bytes",
    "per inference",
    "spread in runs (source)",
    "est. Cortex-M4 cycles",
    "outputs equal / 1 LSB / further",
)
OPERATOR_HEADINGS = (
    "layer",
    "operator",
    "output",
    "MACs",
    "weight bytes",
    "bits",
    "zeros",
    "activation bytes",
    "SQNR dB",
    "largest error",
)
BOARD_NOTE = (
    "Flash and RAM are those of the whole image; the stack, its deepest, is not part of the RAM."
    " Estimated cycles are a model with zero wait states, not a measurement. Outputs are compared"
    " with the TFLM interpreter's."
)


def rows(report: Report) -> list[Row]:
    """The table of a run: what, before, after, change; one row a figure."""
    table = [_count(label, change) for label, change in sizes(report).items()]
    return table + [_accuracy(row) for row in report.accuracy]


def sizes(report: Report) -> dict[str, Change]:
    """What the model takes, by what that is called for people."""
    names = ("params", "macs", "tflite", "arena", "aot_arena")
    return {words(f"size.{name}"): getattr(report.size, name) for name in names}


def proof_line(report: Report) -> str:
    """One sentence: does TFLM compute the same bits as the reference?"""
    proof = report.proof
    if report.unsupported:
        return "TFLM cannot run this model: " + "; ".join(report.unsupported)
    if "tflite-micro" not in report.tools:
        return "TFLM was not run: tflite-micro is not installed (wheels: Linux, x86-64)."
    if proof is None:
        return "Not compared bit for bit: the outputs of this model are not integers."
    runs = f"{proof.samples} samples, {proof.elements:,} outputs"
    if proof.holds:
        return f"{proof.subject} computes the same bits as {proof.reference}: {runs}, all equal."
    return (
        f"{proof.subject} differs from {proof.reference}: {runs}, {proof.exact:,} equal,"
        f" {proof.off_by_one:,} off by one, {proof.mismatch:,} further"
        f" (largest difference {proof.max_diff}){_where(proof)}."
    )


def aot_line(report: Report) -> str:
    """One sentence: what arena the ahead-of-time C needs, or why there is none."""
    if report.memory is None:
        return "No ahead-of-time C for this model: " + "; ".join(report.aot_unsupported)
    return f"Ahead-of-time C: {memory_map.summary(report.memory)}"


def notes(report: Report) -> list[str]:
    """What a reader of the figures must know of a run without data, a line each."""
    found = []
    if not report.accuracy:
        found.append("Accuracy: not measured, as no data was given (--data my.npz).")
    for step in report.steps:
        ends = step.effect.get("estimated_input_range")
        if ends is not None:
            found.append(
                f"The inputs are taken to lie in {ends[0]:.4g} to {ends[1]:.4g}, estimated from the"
                " weights; --input-range LOW HIGH sets what is known."
            )
    return found


def budget_lines(report: Report) -> list[str]:
    """One line for each limit of the budget, with the causes where it is broken, and for each board
    that has limits and was not measured."""
    lines = [f"ok   {each}" if each.ok else f"{each.word} {each.told}" for each in report.budget]
    return lines + unchecked_lines(report.unchecked)


def unchecked_lines(unchecked: Sequence[Verdict]) -> list[str]:
    """A line for each board that has limits which nothing was measured for."""
    boards: dict[str, int] = {}
    for verdict in unchecked:
        board = verdict.limit.split(".")[1]
        boards[board] = boards.get(board, 0) + 1
    return [
        f"{board}: not measured, {count} limit{'s' * (count != 1)} not checked"
        for board, count in boards.items()
    ]


def board_lines(report: Report) -> list[str]:
    """One line for each board and backend, and what else there is to know of it."""
    return [line for row in report.boards for line in (_board_line(row), *parts.remarks(row))]


def _board_line(row: BoardRow) -> str:
    sizes = ", ".join(
        f"{name} {value:,} bytes"
        for name, value in (("flash", row.flash), ("RAM", row.ram), ("stack", row.stack))
        if value is not None
    )
    timing = row.timing
    pace = "" if timing is None else f"{timing.per_inference:,} {timing.unit} per inference"
    return f"{row.board} ({row.backend}): {'; '.join(filter(None, (sizes, pace))) or NONE}"


def render(report: Report) -> str:
    """The whole report as Markdown."""
    blocks = [
        f"# {escaped(report.name)}",
        f"`model.tflite` SHA-256 `{report.sha256}`",
        _safe(HEADINGS, rows(report)),
        "Before: the model as given (float32). After: the compressed flatbuffer. The arena under"
        " TFLM is the exact minimum of its interpreter on a 64-bit host.",
        *(_text(line) for line in (proof_line(report), aot_line(report), *notes(report))),
    ]
    if report.budget or report.unchecked:
        blocks += ["## Budget", _listed(budget_lines(report))]
    if report.boards:
        blocks += ["## On boards", _safe(BOARD_HEADINGS, [board(row) for row in report.boards])]
        remarks = [line for row in report.boards for line in parts.remarks(row)]
        blocks += [BOARD_NOTE, *([_listed(remarks)] if remarks else []), *_parts(report)]
    if report.memory is not None:
        blocks += ["## Memory of the ahead-of-time C", *_memory(report.memory)]
    extra = ("pruned", "trained", "tflm")
    if any(getattr(row, stage) is not None for row in report.accuracy for stage in extra):
        blocks += ["## Accuracy by stage", _stages(report)]
    for section in stages.sections(report):
        table = _safe(section.headings, section.rows)
        blocks += [f"## {_text(section.title)}", section.note, table]
    if report.operators:
        layers = [operator(row) for row in report.operators]
        blocks += ["## Layers", _safe(OPERATOR_HEADINGS, layers)]
    if report.steps:
        blocks += ["## Steps", "\n".join(map(_step, report.steps))]
    tools = [f"{tool}: {version}" for tool, version in report.tools.items()]
    return "\n\n".join([*blocks, "## Tools", _listed(tools)]) + "\n"


def board(row: BoardRow) -> tuple[str, ...]:
    """One board and backend under BOARD_HEADINGS."""
    timing, bits = row.timing, row.outputs
    cycles = timing is not None and timing.cycles_lo is not None
    return (
        row.board,
        row.backend,
        *(NONE if n is None else f"{n:,}" for n in (row.flash, row.ram, row.arena, row.stack)),
        NONE if timing is None else _pace(timing),
        "" if timing is None else f"{timing.spread:,} in {timing.runs} ({timing.source})",
        f"{timing.cycles_lo:,} to {timing.cycles_hi:,}" if timing and cycles else "",
        NONE if bits is None else f"{bits.exact:,} / {bits.off_by_one:,} / {bits.mismatch:,}",
    )


def _pace(timing: Timing) -> str:
    amount = f"{timing.per_inference:,} {timing.unit}"
    return amount if timing.seconds is None else f"{amount}: {latency(timing)}"


def latency(timing: Timing) -> str:
    """What an inference takes on real hardware, and under which conditions; empty elsewhere."""
    if timing.seconds is None or timing.clock_hz is None:
        return ""
    clock = f"{timing.clock_hz / 1e6:g} MHz"
    return f"{timing.seconds * 1e3:,.3f} ms at {clock} ({timing.conditions})"


def _count(label: str, change: Change) -> Row:
    ratio = change.ratio
    return (
        label,
        NONE if change.before is None else f"{change.before:,}",
        NONE if change.after is None else f"{change.after:,}",
        "" if ratio is None else f"{ratio - 1:+.1%}",
    )


def _accuracy(row: AccuracyRow) -> Row:
    drop = row.drop
    change = "" if drop is None else _drop(drop, row.metric)
    label = f"{row.metric} {row.split} ({row.samples:,} samples)"
    return (label, formatted(row.float, row.metric), formatted(row.compressed, row.metric), change)


def formatted(value: float | None, metric: Metric) -> str:
    if value is None:
        return NONE
    return shown(value, metric)


def _drop(drop: float, metric: Metric) -> str:
    if metric == "top1":
        return f"{-100 * drop:+.2f} points"
    return f"{-drop:+.4f}" if metric == "auc" else f"{drop:+.6g}"


def _where(proof: Proof) -> str:
    at = proof.differs_at
    if at is None:
        return ""
    return (
        f"; first at {at.operator} of layer {at.layer}: {at.mismatch:,} of {at.elements:,}"
        f" elements by up to {at.max_diff:g}"
    )


def _stages(report: Report) -> str:
    table = [
        (
            row.split,
            formatted(row.float, row.metric),
            formatted(row.pruned, row.metric),
            formatted(row.trained, row.metric),
            formatted(row.compressed, row.metric),
            NONE if row.tflm is None else f"{formatted(row.tflm, row.metric)} ({row.tflm_samples})",
        )
        for row in report.accuracy
    ]
    return _safe(("split", "float", "pruned", "trained", "compressed", "TFLM (samples)"), table)


def operator(row: OperatorRow) -> tuple[str, ...]:
    """One operator under OPERATOR_HEADINGS."""
    sparsity = row.sparsity
    return (
        row.layer,
        row.kind,
        "x".join(map(str, row.shape)),
        f"{row.macs:,}" if row.macs else "",
        f"{row.weight_bytes:,}" if row.weight_bytes else "",
        "" if row.bits is None else str(row.bits),
        "" if sparsity is None else f"{sparsity:.1%}",
        f"{row.activation_bytes:,}",
        _sqnr(row),
        "" if row.max_abs is None else f"{row.max_abs:.4g}",
    )


def _sqnr(row: OperatorRow) -> str:
    if row.sqnr_db is None:
        return "exact" if row.max_abs == 0 else "not matched"
    return f"{row.sqnr_db:.1f}"


def grid(headings: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> str:
    """`body` under `headings` as a Markdown table, without a line end behind it."""
    lines = [headings, tuple("---" for _ in headings), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _parts(report: Report) -> list[str]:
    """Where flash, RAM and inference go, folded away."""
    blocks: list[str] = []
    for section in parts.sections(report):
        table = _safe(section.headings, section.rows)
        title = f"<details>\n<summary>{section.title}</summary>"
        blocks += [title, section.note, table, "</details>"]
    return blocks


def _safe(headings: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> str:
    """`grid` of cells that may have names out of a model file in them."""
    return grid(tuple(map(_text, headings)), [tuple(map(_text, row)) for row in body])


def _step(step: Step) -> str:
    params, effect = _text(_short(step.params)), _text(_short(step.effect))
    return f"- **{_text(step.stage)}**: {params} → {effect}"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_text(line)}" for line in lines)


def _text(text: str) -> str:
    """A whole sentence, escaped."""
    return escaped(text, None)


def _memory(memory: MemoryMap) -> list[str]:
    """The plan of the arena: bytes by layer, and the drawing, which folds away where it is long."""
    drawing = f"```text\n{memory_map.draw(memory)}\n```"
    table = _safe(memory_map.HEADINGS, memory_map.peaks(memory))
    if len(memory.steps) <= LONG:
        return [memory_map.summary(memory), table, drawing]
    folded = "<details>\n<summary>Bytes by layer, and where each buffer lies</summary>"
    return [memory_map.summary(memory), folded, table, drawing, "</details>"]


def _short(values: object) -> str:
    if not isinstance(values, dict):
        return str(values)
    simple = {k: v for k, v in values.items() if isinstance(v, (str, int, float, bool))}
    return ", ".join(f"{key} {value}" for key, value in simple.items()) or "-"
