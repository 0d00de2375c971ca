"""Training and slimming of the kws model: a few steps, twice, and the file it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecompress import cost, prune
from edgecompress.loading import load
from models.kws import slim, train
from models.kws.clips import LABELS, Clips
from tests.conftest import nightly


def some_clips() -> Clips:
    rng = np.random.default_rng(0)
    y = np.arange(24) % len(LABELS)
    return Clips(rng.normal(size=(24, 49, 10, 1)).astype(np.float32), y, np.full(24, "a"))


def test_training_is_seeded_reports_and_writes_a_model_without_optimizer(tmp_path: Path) -> None:
    clips = some_clips()
    schedule = train.Schedule(steps=4, batch=8, warm_up_steps=1, averaging=0.5)
    seen: list[tuple[str, int, int]] = []
    first = train.fit(
        clips, clips, seed=1, schedule=schedule, progress=lambda *step: seen.append(step)
    )
    assert seen == [("training", done, 4) for done in (1, 2, 3, 4)]
    expected = np.asarray(first(clips.x, training=False))
    for seed, apart in nightly(ci=((1, False),), full=((1, False), (2, True))):
        again = np.asarray(train.fit(clips, clips, seed=seed, schedule=schedule)(clips.x))
        # 1e-4: threads may add up a gradient in another order
        assert (np.abs(again - expected).max() > 1e-4) == apart
    train.save(first, tmp_path / "kws.keras")
    assert [file.name for file in tmp_path.iterdir()] == ["kws.keras"]
    written = load(tmp_path / "kws.keras").keras
    assert written is not None
    np.testing.assert_allclose(np.asarray(written(clips.x, training=False)), expected, atol=1e-6)


def test_slimming_is_seeded_leaves_its_input_and_closes_channels_by_fours() -> None:
    clips, full = some_clips(), train.ds_cnn(seed=0)
    before = [w.copy() for w in full.get_weights()]
    how = slim.Slimming(macs=0.6, rounds=2, removing=0.5, score_clips=32)
    schedule = train.Schedule(steps=4, batch=8, warm_up_steps=1, averaging=0.5)
    seen: list[tuple[str, int, int]] = []
    first, *others = (
        slim.slim(
            full,
            clips,
            clips,
            seed=1,
            slimming=how,
            schedule=schedule,
            progress=lambda *step: seen.append(step),
        )
        for _ in range(nightly(1, 2))
    )
    assert seen == [("slimming", done, 4) for done in (1, 2, 3, 4)] * (1 + len(others))
    assert all(map(np.array_equal, full.get_weights(), before))
    for other in others:
        assert slim.dead(other) == slim.dead(first)
        # 1e-4: threads may add up a gradient in another order
        for a, b in zip(first.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.abs(first.get_weights()[0] - before[0]).max() > 1e-5

    dead = slim.dead(first)
    assert all(len(channels) % 4 == 0 for channels in dead.values())
    plan = prune.plan(first, ratio=sum(map(len, dead.values())) / 320, score="l2")
    assert plan.drops == dead
    cut = prune.cut(first, plan)
    assert cost.macs(cut) <= 0.6 * cost.macs(first)
    np.testing.assert_allclose(
        np.asarray(cut(clips.x, training=False)),
        np.asarray(first(clips.x, training=False)),
        atol=1e-5,
    )
