"""Gradual magnitude pruning by tfmot: the promised zeros, where they are promised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.artifact import Artifact
from edgecompress.channels.graph import trace
from edgecompress.data import Dataset
from edgecompress.errors import ConfigError, StageOrderError
from edgecompress.recipe import Sparsify
from edgecompress.training import sparsify as module
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.kernels import Kernel
from edgecompress.training.sparsify import sparsify
from edgecompress.vocabulary import Pattern
from tests.small_training import TRAIN, plain, task


@pytest.fixture(scope="module")
def data() -> Dataset:
    return task()


def kernels(artifact: Artifact) -> dict[str, Any]:
    model = artifact.need_keras("test")
    return {
        name: np.asarray(model.get_layer(name).kernel)
        for name in ("stem", "depthwise", "point", "head")
    }


def test_the_smallest_weights_become_zero_and_a_resumed_run_ends_alike(
    data: Dataset, tmp_path: Path
) -> None:
    model = plain()
    before = model.get_weights()
    options = Sparsify(sparsity=0.7, protect=("head",))
    entry = Artifact("plain", model)
    done = sparsify(entry, data=data, options=options, train=TRAIN, seed=1)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    found = kernels(done)
    zeros = {name: int((kernel == 0).sum()) for name, kernel in found.items()}
    assert zeros == {"stem": 101, "depthwise": 50, "point": 50, "head": 0}
    effect = done.steps[-1].effect
    assert {key: row["zeros"] for key, row in effect["kernels"].items()} == {
        name: count for name, count in zeros.items() if count
    }
    fit = effect["training"]
    assert fit["best_epoch"] >= 2 and fit["losses"][-1] < fit["losses"][0]

    def interrupt(label: str, step: int, total: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    at: dict[str, Any] = {"data": data, "options": options, "train": TRAIN, "seed": 1}
    with pytest.raises(KeyboardInterrupt):
        sparsify(entry, **at, checkpoints=Checkpoints(tmp_path), progress=interrupt)
    resumed = sparsify(entry, **at, checkpoints=Checkpoints(tmp_path))
    for name, kernel in kernels(resumed).items():
        np.testing.assert_array_equal(kernel, found[name])


def test_n_of_m_runs_along_the_input_channels(data: Dataset) -> None:
    entry = Artifact("plain", plain())
    done = sparsify(entry, data=data, options=Sparsify(pattern="2:4"), train=TRAIN)
    found = kernels(done)
    groups = found["point"].reshape(2, 4, 9)  # (8 inputs, 9 outputs)
    assert (np.count_nonzero(groups, axis=1) == 2).all()
    groups = found["head"].reshape(9, 4, 4)
    assert (np.count_nonzero(groups, axis=1) == 2).all()
    assert found["stem"].all() and found["depthwise"].all()  # 2 channels; no neighbours
    assert "depthwise" not in done.steps[-1].effect["kernels"]
    assert done.steps[-1].effect["training"]["best_epoch"] >= 1


def test_pairs_follow_the_order_of_the_flatbuffer(data: Dataset) -> None:
    options = replace(Sparsify(sparsity=0.75), pattern="pairs", ramp="constant")
    done = sparsify(Artifact("plain", plain()), data=data, options=options, train=TRAIN)
    found = kernels(done)
    stem = np.moveaxis(found["stem"], -1, 0).reshape(-1, 2)  # both input channels of one tap
    assert (~stem.any(axis=1)).sum() == 54 and (stem[stem.any(axis=1)] != 0).all()
    head = found["head"].T.reshape(-1, 2)
    assert (~head.any(axis=1)).sum() == 54
    assert found["depthwise"].all()


def test_layers_that_do_not_exist_and_nothing_to_do(data: Dataset) -> None:
    entry = Artifact("plain", plain())
    with pytest.raises(ConfigError, match=r"^sparsify.protect: the model has no layer 'stam'"):
        sparsify(entry, data=data, options=Sparsify(protect=("stam",)), train=TRAIN)
    every = Sparsify(protect=("Conv2D", "DepthwiseConv2D", "SeparableConv1D", "head"))
    with pytest.raises(ConfigError, match=r"^sparsify: the model has no kernel of at least 64"):
        sparsify(entry, data=data, options=every, train=TRAIN)
    with pytest.raises(ConfigError, match=r"^sparsify: data images has no rows to train on"):
        sparsify(entry, data=replace(data, training=None), train=TRAIN)
    with pytest.raises(StageOrderError, match=r"^sparsify: "):
        sparsify(Artifact("late", plain(), b"tflite"), data=data, train=TRAIN)


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 3000), end=st.floats(0.01, 1.0), share=st.floats(0.05, 0.95))
def test_the_last_mask_is_made_in_time_and_whole(total: int, end: float, share: float) -> None:
    """tfmot changes masks at every so many steps: the end must be one of them."""
    import tensorflow as tf

    ramp = module._ramp(Sparsify(sparsity=share, end=end), total)
    last = tf.constant(module._whole_from(ramp), tf.int64)
    assert 1 <= last <= total
    changes, sparsity = ramp(last)
    assert changes and sparsity == np.float32(share)


@pytest.mark.parametrize("pattern", ["pairs", "quads"])
@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 5),
    rest=st.integers(1, 13),
    share=st.floats(0, 0.99),
    seed=st.integers(0, 99),
)
def test_whole_blocks_with_the_smallest_sums_go(
    pattern: Pattern, outputs: int, rest: int, share: float, seed: int
) -> None:
    size = module.BLOCKS[pattern]
    kernel = Kernel("dense", "Dense", "kernel", (rest, outputs), (1, 0), 1, True, "dense")
    weights = np.random.default_rng(seed).integers(-3, 4, (rest, outputs)).astype(np.float32)
    rows = np.asarray(module._block_mask(weights, kernel, size, share)).T
    padding = ((0, 0), (0, -rest % size))
    blocks = np.pad(rows, padding, constant_values=-1).reshape(-1, size)
    sums = np.pad(np.abs(weights.T), padding).reshape(-1, size).sum(axis=1)
    kept = (blocks == 1).any(axis=1)
    assert ((blocks == 1) | (blocks == -1)).all(axis=1)[kept].all()
    assert len(kept) - kept.sum() == module._zeros(len(kept), share)
    assert kept.all() or sums[kept].min() >= sums[~kept].max()


def test_weights_of_equal_size_make_as_many_zeros_as_promised() -> None:
    """tfmot keeps all that are as large as its threshold."""
    kernel = Kernel("dense", "Dense", "kernel", (10, 10), (1, 0), 1, True, "dense")
    made = module._exact(np.ones((10, 10), np.float32), kernel, Sparsify(sparsity=0.63))
    assert (made == 0).sum() == module._zeros(100, 0.63) == 63


def test_frozen_layers_are_left_alone() -> None:
    from edgecompress.training.kernels import chosen

    model = plain()
    model.get_layer("stem").trainable = False
    names = {kernel.layer for kernel in chosen(trace(model), ("head",), "sparsify")}
    assert names == {"depthwise", "point"}
