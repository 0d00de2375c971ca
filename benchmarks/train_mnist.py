"""LeNet-300-100 and LeNet-5 on MNIST: sparsity and clusters that shrink the firmware."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.aot import Row, measured, show
from benchmarks.trained import KEPT, kept, need, percent, told
from edgecompress import npz, pipeline
from edgecompress.artifact import Artifact
from edgecompress.budget import Budget
from edgecompress.data import Dataset, Rows, Split, Training
from edgecompress.pipeline import Plan
from edgecompress.recipe import Cluster, Finetune, Qat, Recipe, Sparsify, Train
from edgecompress.training.finetune import finetune

if TYPE_CHECKING:
    import keras

ROWS = "mnist/mnist_10k_10k.npz"
HELD = 1000
DENSE = Train(batch=64, learning_rate=1e-3, epochs=20, weight_decay=1e-3)
TRAIN = Train(batch=64, learning_rate=1e-3, epochs=16, teacher=0.5)
WAYS: dict[str, Recipe] = {
    "dense": Recipe(),
    "90 % zeros": Recipe(sparsify=Sparsify(sparsity=0.9), train=TRAIN),
    "95 % zeros": Recipe(sparsify=Sparsify(sparsity=0.95), train=TRAIN),
    "16 values": Recipe(cluster=Cluster(clusters=16), train=TRAIN),
    "90 % zeros, 16 values, QAT": Recipe(
        sparsify=Sparsify(sparsity=0.9),
        cluster=Cluster(clusters=16, epochs=4, learning_rate=3e-4),
        qat=Qat(epochs=4, learning_rate=1e-4),
        train=TRAIN,
    ),
}
HEADINGS = (
    "",
    "zeros",
    "top-1, int8",
    "`.tflite`",
    "gzip of it",
    "flash",
    "of dense",
    "RAM",
    "instructions",
    "of dense",
    "flash, instructions with `size`",
    "outputs with TFLM's bits",
)


def data() -> Dataset:
    """10,000 rows to train on, 1,000 of them held out, and the 10,000 test images; 0 to 1."""
    arrays = npz.read(need(ROWS))
    parts = {}
    for part in ("train", "test"):
        x = arrays[f"x_{part}"].reshape(-1, 28, 28, 1).astype(np.float32) / 255
        parts[part] = x, arrays[f"y_{part}"].astype(np.int64)
    (x, y), test = parts["train"], parts["test"]
    order = np.random.default_rng(0).permutation(len(x))
    held, heard = order[:HELD], order[HELD:]
    training = Training(Rows(x[heard], y[heard]), Split("stop", x[held], y[held]))
    return Dataset("mnist", "top1", x[heard[:500]], Split("test", *test), training=lambda: training)


def lenet300() -> keras.Model:
    """LeNet-300-100: 266,610 parameters."""
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((28, 28, 1), name="image")
    x = kl.Flatten(name="flat")(x)
    for name, units in (("first", 300), ("second", 100)):
        x = kl.Dense(units, activation="relu", name=name)(x)
    return keras.Model(
        inputs, kl.Dense(10, activation="softmax", name="classes")(x), name="lenet300"
    )


def lenet5() -> keras.Model:
    """LeNet-5 as Caffe has it: 20 and 50 maps, 500 units, 431,080 parameters."""
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((28, 28, 1), name="image")
    for name, maps in (("first", 20), ("second", 50)):
        x = kl.Conv2D(maps, 5, activation="relu", name=name)(x)
        x = kl.MaxPooling2D(name=f"{name}_pool")(x)
    x = kl.Dense(500, activation="relu", name="third")(kl.Flatten(name="flat")(x))
    return keras.Model(inputs, kl.Dense(10, activation="softmax", name="classes")(x), name="lenet5")


def dense(model: keras.Model, rows: Dataset) -> Artifact:
    """The network trained without any compression."""
    return replace(
        finetune(
            Artifact(model.name, model),
            data=rows,
            options=Finetune(),
            train=DENSE,
            checkpoints=kept(model.name, "dense"),
        ),
        steps=(),
    )


def row(given: Artifact, rows: Dataset, way: str, first: list[int]) -> Row:
    """One way to compress a network, as HEADINGS says; `first` are flash and instructions of the
    dense one, which the first row fills in."""
    plan = Plan(given, rows, WAYS[way], Budget())
    result = pipeline.run(plan, checkpoints=KEPT / f"{given.name}-{way}")
    flatbuffer = result.artifact.need_tflite("benchmark")
    image, run = measured(given.name, flatbuffer)
    assert image.cost is not None and run.per_inference is not None and run.bits is not None
    least, slower = measured(given.name, flatbuffer, optimize="size")
    assert least.cost is not None
    first.extend([image.cost.flash, run.per_inference][len(first) :])
    operators = result.report.operators
    zeros = sum(op.zeros for op in operators) / sum(op.weights for op in operators)
    top1 = result.report.accuracy[0].compressed
    told(f"{given.name}, {way}: {percent(top1)}, {image.cost.flash:,} bytes of flash")
    return (
        way,
        percent(zeros),
        percent(top1),
        f"{len(flatbuffer):,}",
        f"{len(gzip.compress(flatbuffer, mtime=0)):,}",
        f"{image.cost.flash:,}",
        f"{image.cost.flash / first[0]:.3f}",
        f"{image.cost.ram:,}",
        f"{run.per_inference:,}",
        f"{run.per_inference / first[1]:.3f}",
        f"{least.cost.flash:,}, {slower.per_inference:,}",
        f"{run.bits.exact:,} of {run.bits.elements:,}",
    )


def main() -> None:
    """One table a network."""
    rows = data()
    print("## MNIST: zeros that pay\n")
    print(
        f"9,000 images to train on, {HELD:,} others for when to stop, judged on the 10,000 test"
        " images. Flash and RAM are what the model adds to the firmware of `qemu_m4`, instructions"
        " are exact. gzip is the size of a compressed file, which no microcontroller runs from."
    )
    for make in (lenet300, lenet5):
        given = dense(make(), rows)
        print(f"\n### {make.__doc__}\n")
        first: list[int] = []
        show(HEADINGS, [row(given, rows, way, first) for way in WAYS])


if __name__ == "__main__":
    main()
