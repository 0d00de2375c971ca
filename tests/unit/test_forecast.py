"""The dry run: what it says of stages and sizes, against what the stages themselves make."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import cli, cost, pipeline
from edgecompress.artifact import Artifact
from edgecompress.channels.graph import read_weights, trace
from edgecompress.data import Dataset, Rows, Split, Training
from edgecompress.datafree.fold import fold
from edgecompress.errors import ConfigError
from edgecompress.pipeline.forecast import Forecast, _converted, forecast
from edgecompress.pipeline.standin import stand_in
from edgecompress.prune import prune_structured
from edgecompress.quantization import quantize, trained
from edgecompress.quantization.conversion import convert
from edgecompress.recipe import SPELLED, Cluster, Recipe, Sparsify, Train, find
from edgecompress.tflite import read, write
from edgecompress.tflite.passes import lossless
from edgecompress.training.kernels import Kernel, kernels

RNG = np.random.default_rng(2)
X = RNG.standard_normal((90, 8, 8, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 90)
TRAINING = Training(Rows(X[:50], Y[:50]), Split("validation", X[50:60], Y[50:60]))
DATA = Dataset(
    "toy", "top1", X[60:80], Split("test", X[80:], Y[80:]), pool_y=Y[60:80],
    training=lambda: TRAINING,
)  # fmt: skip


def build() -> Any:
    """Convolutions with BatchNormalization, one depthwise, and dense layers."""
    import keras
    from keras import layers as kl

    def seeded(seed: int) -> Any:
        return keras.initializers.GlorotUniform(seed=seed)

    x = keras.Input((8, 8, 4), name="image")
    y = kl.Conv2D(16, 3, use_bias=False, name="conv", kernel_initializer=seeded(1))(x)
    y = kl.ReLU(name="relu")(kl.BatchNormalization(name="norm")(y))
    y = kl.DepthwiseConv2D(3, name="deep", depthwise_initializer=seeded(2))(y)
    y = kl.Conv2D(16, 1, activation="relu", name="point", kernel_initializer=seeded(3))(y)
    y = kl.Dense(64, activation="relu", name="wide", kernel_initializer=seeded(4))(
        kl.Flatten(name="flat")(y)
    )
    y = kl.Dense(3, activation="softmax", name="out", kernel_initializer=seeded(5))(y)
    return keras.Model(x, y, name="toy")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "toy.keras"
    build().save(path)
    return path


def foreseen(file: Path, recipe: Recipe | str, data: Dataset = DATA) -> Forecast:
    given = find(recipe) if isinstance(recipe, str) else recipe
    return forecast(pipeline.plan(file, data=data, recipe=given))


def test_sizes_of_a_pruned_model_are_those_it_will_have(file: Path) -> None:
    given = Artifact("toy", build())
    options = replace(SPELLED.prune, macs=0.5)
    found = foreseen(file, replace(SPELLED, prune=options))
    pruned = prune_structured(given, macs=0.5, round_to=4, min_channels=4)
    for sizes, artifact in ((found.given, given), (found.predicted, pruned)):
        total = cost.total(artifact.need_keras("test"))
        assert (sizes.macs, sizes.params) == (total.macs, total.params)
        data = quantize(artifact, calibration=DATA.calibration(200)).need_tflite("test")
        assert sizes.tflite == len(write(lossless(read(data))))
    before, after = vars(found.given), vars(found.predicted)
    assert all(after[key] < before[key] for key in before)
    assert [(row.stage, row.epochs) for row in found.stages] == [
        ("prune", None),
        ("quantize", None),
    ]


def test_the_plan_has_a_row_for_each_stage(file: Path) -> None:
    recipe = find("prune50x3-distil-pairs50-cluster8-qat4")
    recipe = replace(recipe, train=replace(recipe.train, epochs=7, batch=16))
    found = foreseen(file, recipe)
    steps = -(-50 // 16)
    assert [(row.stage, row.epochs, row.steps, row.rows) for row in found.stages] == [
        ("prune", 4, 4 * steps, 50),  # two rounds with training behind them
        ("finetune", 7, 7 * steps, 50),
        ("sparsify", 7, 7 * steps, 50),
        ("cluster", 7, 7 * steps, 50),
        ("qat", 7, 7 * steps, 50),
        ("quantize", None, None, None),
    ]
    told = {row.stage: row.what for row in found.stages}
    assert "macs 0.5 to remain" in told["prune"] and "3 rounds" in told["prune"]
    assert "0.7 by the uncompressed" in told["finetune"]
    assert "50% of the weights 0, pairs" in told["sparsify"]
    assert "4 bits" in told["qat"]


def test_what_the_ahead_of_time_c_can_do_without_is_foreseen(file: Path) -> None:
    flash = {}
    for name in ("qat", "sparse90-cluster8-qat", "mixed60"):
        plan = pipeline.plan(file, data=DATA, recipe=find(name), optimize="size")
        flash[name] = forecast(plan).predicted.flash or 0
    assert 0 < flash["sparse90-cluster8-qat"] < 0.6 * flash["qat"]
    assert 0 < flash["mixed60"] < 0.8 * flash["qat"]


def test_int16_activations_are_foreseen(file: Path) -> None:
    found, plain = foreseen(file, "int16x8"), foreseen(file, Recipe())
    assert found.stages[-1].what == "int16x8, calibrated with samples"
    arenas = found.predicted.arena, plain.predicted.arena
    assert arenas[0] is not None and arenas[1] is not None
    assert arenas[0] > 1.5 * arenas[1]


def test_a_flatbuffer_has_no_stages(file: Path, tmp_path: Path) -> None:
    made = quantize(Artifact("toy", build()), calibration=X[:16]).need_tflite("test")
    path = tmp_path / "toy.tflite"
    path.write_bytes(made)
    found = foreseen(path, Recipe())
    assert found.stages == () and found.given == found.predicted
    assert found.given.tflite == len(write(lossless(read(made))))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(sparsify=Sparsify(protect=("gone",))), "sparsify.protect: .* no layer 'gone'"),
        (Recipe(cluster=Cluster(protect=("gone",))), "cluster.protect: .* no layer 'gone'"),
        (
            replace(find("finetune"), train=Train(features=("gone",))),
            "train.features: .* no layer 'gone'",
        ),
        (replace(SPELLED, prune=replace(SPELLED.prune, macs=0.001)), "cannot be reached"),
        (
            replace(SPELLED, prune=replace(SPELLED.prune, ratio=0.5, protect=("gone",))),
            "gone",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_trains(
    file: Path, recipe: Recipe, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        foreseen(file, recipe)


def shaped(recipe: Recipe) -> dict[str, tuple[Kernel, Any]]:
    """The kernels of the stand-in by layer, as rows (outputs, rest)."""
    model, _ = stand_in(build(), recipe)
    graph = trace(model)
    weights = {name: read_weights(op) for name, op, _ in graph.layers()}
    return {k.key: (k, k.rows(weights[k.layer][k.weight])) for k in kernels(graph)}


def test_zeros_lie_as_the_patterns_have_them() -> None:
    some = shaped(Recipe(sparsify=Sparsify(sparsity=0.75, protect=("wide",))))
    for name in ("conv", "deep", "point", "out"):
        kernel, rows = some[name]
        assert (rows == 0).sum() == round(0.75 * kernel.size)
    assert (some["wide"][1] != 0).all()
    groups = shaped(Recipe(sparsify=Sparsify(pattern="2:4")))
    for name in ("conv", "point", "wide", "out"):
        kept = groups[name][1].reshape(-1, 4)
        assert ((kept != 0).sum(axis=1) == 2).all()
    assert (groups["deep"][1] != 0).all()
    pairs = shaped(Recipe(sparsify=Sparsify(sparsity=0.5, pattern="pairs")))
    for name in ("conv", "point", "wide", "out"):
        alive = (pairs[name][1].reshape(-1, 2) != 0).sum(axis=1)
        assert set(alive.tolist()) == {0, 2} and (alive == 0).mean() == 0.5


def test_clusters_and_grids_are_as_the_stages_have_them() -> None:
    recipe = find("sparse50-cluster8-qat4")
    assert recipe.sparsify is not None
    recipe = replace(recipe, sparsify=replace(recipe.sparsify, protect=()))
    model, grids = stand_in(build(), recipe)
    found = shaped(recipe)
    for name, (kernel, rows) in found.items():
        assert len(np.unique(rows)) <= 8 and 0 in rows, name
        assert (rows == 0).sum() >= kernel.size // 2
        scales = np.asarray(grids[name]["scales"])
        assert scales.shape == (1,)
        assert np.abs(rows / scales - np.rint(rows / scales)).max() < 1e-4
        assert np.abs(np.rint(rows / scales)).max() == 7
    data = convert(fold(model), mode="int8", types=("int8", "int8"), rows=X[:8])
    data, layers = trained.put_on(data, model, grids)
    assert {row["rule"] for row in layers} == {"trained"} and len(layers) == len(found)


def test_clusters_without_qat_are_foreseen_in_int8() -> None:
    """Few distinct values in the whole kernel, as the cluster stage leaves them."""
    made = _converted(Artifact("toy", build()), find("cluster8"), X[:8])
    program = read(made)
    weights = [program.tensors[op.inputs[1]] for op in program.ops if "CONV" in op.kind]
    assert [len(np.unique(tensor.array)) for tensor in weights] == [8, 8, 8]


def test_a_dry_run_prints_and_writes_nothing(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "toy.npz", tmp_path / "run"
    np.savez(data, x=X[60:], y=Y[60:], x_train=X[:60], y_train=Y[:60])
    command = ["compress", str(file), "--data", str(data), "--recipe", "prune50-finetune"]
    command += ["--epochs", "3", "--dry-run", "--out", str(out)]
    assert cli.main(command) == 0
    shown = capfd.readouterr().out
    assert "finetune" in shown and "multiply-accumulates" in shown
    assert shown.endswith("A dry run: nothing was trained or written.\n")
    assert cli.main([*command, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert [row["epochs"] for row in told["stages"]] == [None, 3, None]
    assert told["predicted"]["macs"] <= 0.5 * told["given"]["macs"]
    assert not out.exists() and sorted(tmp_path.iterdir()) == [data]
