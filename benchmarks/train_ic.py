"""ResNet-8 at half its MACs: fine-tuning, distillation, from scratch; weights of few bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.aot import Row, show
from benchmarks.trained import from_scratch, kept, percent, spread, told, top1
from edgecompress import cost, runtimes, zoo
from edgecompress.artifact import Artifact
from edgecompress.data import Dataset
from edgecompress.evaluation import score
from edgecompress.pipeline.stages import Work, pruned
from edgecompress.quantization import quantize
from edgecompress.recipe import Finetune, Prune, Qat, Recipe, Train
from edgecompress.training.qat import qat

MODEL = "mlperf_ic"
SEEDS = (0, 1, 2)
EPOCHS, ROUNDS, ROUND_EPOCHS = 24, 4, 3
LEFT = EPOCHS - ROUND_EPOCHS * (ROUNDS - 1)
PLAIN = Train(batch=64, learning_rate=1e-3, epochs=EPOCHS)
TAUGHT = replace(PLAIN, teacher=0.9, temperature=4.0)
HALF = Prune(macs=0.5, score="l2", round_to=4, floor=0.25)
BITS = (4, 3)
QAT_EPOCHS = 12


def main() -> None:
    """Two tables."""
    given, data = zoo.artifact(MODEL), zoo.dataset(MODEL)
    _halved(given, data)
    _few_bits(given, data)


def _halved(given: Artifact, data: Dataset) -> None:
    model = given.need_keras("benchmark")
    whole = top1(model, data.test)
    print("## ResNet-8 on CIFAR-10 at half its MACs\n")
    once = pruned(Work(given, data, Recipe(prune=HALF), None, None, lambda *_: None))
    cut = top1(once.need_keras("benchmark"), data.test)
    trains = Recipe(prune=HALF, finetune=Finetune())
    settled = pruned(Work(given, data, trains, None, None, lambda *_: None))
    recalibrated = top1(settled.need_keras("benchmark"), data.test)
    before, after = cost.macs(model), cost.macs(once.need_keras("benchmark"))
    print(
        f"{before:,} MACs to {after:,}; trained on 2,000 images, stopped by 500 others, judged on"
        f" {len(data.test):,} test images; {len(SEEDS)} seeds, ± half the range. Channels by"
        f" `{HALF.score}`, all at once; every way trains for {EPOCHS} epochs, that in rounds for"
        f" {ROUND_EPOCHS} after each cut but the last of {ROUNDS} and for {LEFT} at the end.\n"
    )

    def won(value: float) -> str:
        return f"{100 * (value - cut) / (whole - cut):.0f} %"

    rows: list[Row] = [
        ("float, all channels", percent(whole), ""),
        ("pruned, not trained", percent(cut), ""),
        ("the same, BatchNormalization recalibrated", percent(recalibrated), won(recalibrated)),
    ]
    for name, run in WAYS.items():
        found = [run(given, data, seed) for seed in SEEDS]
        rows.append((name, spread(found), f"{won(min(found))} to {won(max(found))}"))
        told(f"{MODEL}: {name}: {found}")
    show(("", "top-1", "of the loss won back"), rows)


def _tuned(given: Artifact, data: Dataset, seed: int, *, train: Train, name: str) -> float:
    recipe = Recipe(prune=HALF, finetune=Finetune(), train=train, seed=seed)
    work = Work(given, data, recipe, None, kept(MODEL, name, seed), lambda *_: None)
    done = work.train("finetune", pruned(work), Finetune())
    return top1(done.need_keras("benchmark"), data.test)


def _in_rounds(given: Artifact, data: Dataset, seed: int) -> float:
    steps = replace(HALF, rounds=ROUNDS, epochs=ROUND_EPOCHS)
    recipe = Recipe(prune=steps, finetune=Finetune(epochs=LEFT), train=TAUGHT, seed=seed)
    work = Work(given, data, recipe, None, kept(MODEL, "rounds", seed), lambda *_: None)
    done = work.train("finetune", pruned(work), Finetune(epochs=LEFT))
    return top1(done.need_keras("benchmark"), data.test)


def _scratch(given: Artifact, data: Dataset, seed: int) -> float:
    once = pruned(Work(given, data, Recipe(prune=HALF), None, None, lambda *_: None))
    made = from_scratch(
        once, data=data, train=PLAIN, seed=seed, checkpoints=kept(MODEL, "scratch", seed)
    )
    return top1(made, data.test)


WAYS: dict[str, Callable[[Artifact, Dataset, int], float]] = {
    "the same architecture from scratch": _scratch,
    "fine-tuned": lambda *of: _tuned(*of, train=PLAIN, name="plain"),
    "fine-tuned with distillation": lambda *of: _tuned(*of, train=TAUGHT, name="taught"),
    "in rounds, with distillation": _in_rounds,
}


def _few_bits(given: Artifact, data: Dataset) -> None:
    print("\n## ResNet-8 with weights of few bits\n")
    print(
        f"int8 activations. QAT: {QAT_EPOCHS} epochs with distillation; the others train nothing."
        " Top-1 of the flatbuffer under reference kernels.\n"
    )
    rows: list[Row] = []
    for bits in BITS:
        ways = {
            "data-free": _free(given, bits),
            "500 samples": _free(given, bits, data),
            "QAT": _trained(given, data, bits),
        }
        rows.append((str(bits), *(percent(_right(each, data)) for each in ways.values())))
        told(f"{MODEL}: {bits} bits: {rows[-1]}")
    show(("bits", "data-free rounding", "rounding by 500 samples", "QAT"), rows)


def _free(given: Artifact, bits: int, data: Dataset | None = None) -> Artifact:
    return quantize(
        given,
        calibration="data-free" if data is None else data.pool,
        weight_bits=bits,
        rounding="compensated",
        correct_bias=True,
        input_range=(0, 255) if data is None else None,
    )


def _trained(given: Artifact, data: Dataset, bits: int) -> Artifact:
    done = qat(
        given,
        data=data,
        options=Qat(weight_bits=bits, epochs=QAT_EPOCHS, learning_rate=3e-4),
        train=TAUGHT,
        teacher=given.keras,
        checkpoints=kept(MODEL, "qat", bits),
    )
    return quantize(done, calibration="trained")


def _right(artifact: Artifact, data: Dataset) -> float:
    outputs = runtimes.run(artifact.need_tflite("benchmark"), data.test.x).values
    return score(outputs, data.test, metric="top1")


if __name__ == "__main__":
    main()
