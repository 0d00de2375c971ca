"""Keyword spotting at three quarters, half and a quarter of its MACs, trained on."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.aot import Row, measured, show
from benchmarks.trained import KEPT, from_scratch, kept, percent, told, top1
from edgecompress import pipeline, zoo
from edgecompress.budget import Budget
from edgecompress.data import Split
from edgecompress.recipe import Finetune, Prune, Qat, Quantize, Recipe, Train
from edgecompress.report import AccuracyRow

DATA = "kws"
MODELS = {"kws": (0.25, 0.5, 0.75), "mlperf_kws": (0.5,)}
"""The share of the MACs that goes."""
SPLIT = "kws01_unseen"
TRAIN = Train(batch=128, learning_rate=2e-3, epochs=24, teacher=0.7)
ROUNDS, ROUND_EPOCHS, QAT_EPOCHS = 4, 3, 8
RATE = 2e-4
"""The learning rate of quantisation-aware training."""
TYPES = Quantize(input_type="int8", output_type="int8")
HEADINGS = (
    "MACs removed",
    "MACs",
    "scratch, float",
    "pruned, float",
    "trained, float",
    "int8",
    "int8, validation",
    "`.tflite`",
    "weight bytes",
    "flash",
    "RAM",
    "instructions",
)


def recipe(removed: float) -> Recipe:
    """Channels away in rounds, training, int8 as trained; nothing but int8 where none goes."""
    if not removed:
        return Recipe(quantize=TYPES)
    return Recipe(
        prune=Prune(macs=1 - removed, round_to=4, floor=0.125, rounds=ROUNDS, epochs=ROUND_EPOCHS),
        finetune=Finetune(),
        qat=Qat(epochs=QAT_EPOCHS, learning_rate=RATE),
        quantize=TYPES,
        train=TRAIN,
    )


def row(name: str, removed: float) -> Row:
    """One model at one size, as HEADINGS says."""
    data = zoo.dataset(DATA)
    given = zoo.artifact(name)
    plan = pipeline.plan(name, data=data, recipe=recipe(removed), budget=Budget())
    result = pipeline.run(plan, checkpoints=KEPT / f"{name}-{removed:g}")
    rows = {each.split: each for each in result.report.accuracy}
    scratch = None
    if removed:
        smaller = replace(given, keras=result.artifact.keras)
        epochs = TRAIN.epochs + ROUND_EPOCHS * (ROUNDS - 1) + QAT_EPOCHS
        train = replace(TRAIN, epochs=epochs, teacher=0.0)
        made = from_scratch(
            smaller, data=data, train=train, seed=0, checkpoints=kept(name, removed, "scratch")
        )
        scratch = top1(made, _split(data.extra))
    image, run = measured(name, result.artifact.need_tflite("benchmark"))
    assert image.cost is not None
    size, weights = result.report.size, sum(op.weight_bytes for op in result.report.operators)
    told(f"{name} {removed:g}: {rows[SPLIT]}")
    return (
        f"{removed:.0%}",
        f"{size.macs.after:,}",
        percent(scratch),
        *_floats(rows[SPLIT]),
        percent(rows[SPLIT].compressed),
        percent(rows["validation"].compressed),
        f"{size.tflite.after:,}",
        f"{weights:,}",
        f"{image.cost.flash:,}",
        f"{image.cost.ram:,}",
        f"{run.per_inference:,}",
    )


def _floats(found: AccuracyRow) -> tuple[str, str]:
    after = found.float if found.trained is None else found.trained
    return percent(found.float if found.pruned is None else found.pruned), percent(after)


def _split(splits: tuple[Split, ...]) -> Split:
    return next(split for split in splits if split.name == SPLIT)


def main() -> None:
    """One table a model."""
    print("## Keyword spotting, trained on\n")
    print(
        "Top-1 in percent on `kws01_unseen`, 387 clips of speakers that training never heard, and"
        " on 484 further ones (`validation`). In rounds:"
        f" {ROUNDS} cuts, {ROUND_EPOCHS} epochs after each but the last, {TRAIN.epochs} epochs,"
        f" {QAT_EPOCHS} of quantisation-aware training, with the unpruned model as teacher;"
        ' "pruned" is right after the last cut, "scratch" the same architecture with fresh weights'
        " after as many epochs. One standard error is about 1.5 points. Flash and RAM are what the"
        " model adds to the firmware of `qemu_m4`, instructions are exact.\n"
    )
    for name, ratios in MODELS.items():
        print(f"### {name}\n")
        show(HEADINGS, [row(name, removed) for removed in (0.0, *ratios)])
        print()


if __name__ == "__main__":
    main()
