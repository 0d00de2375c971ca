"""Training of the kws model: a few steps, twice, and the file it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecompress.loading import load
from models.kws import train
from models.kws.clips import LABELS, Clips


def test_training_is_seeded_reports_and_writes_a_model_without_optimizer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(24) % len(LABELS)
    clips = Clips(rng.normal(size=(24, 49, 10, 1)).astype(np.float32), y, np.full(24, "a"))
    schedule = train.Schedule(steps=4, batch=8, warm_up_steps=1, averaging=0.5)
    seen: list[tuple[str, int, int]] = []
    first = train.fit(
        clips, clips, seed=1, schedule=schedule, progress=lambda *step: seen.append(step)
    )
    assert seen == [("training", done, 4) for done in (1, 2, 3, 4)]
    second = train.fit(clips, clips, seed=1, schedule=schedule)
    other = train.fit(clips, clips, seed=2, schedule=schedule)
    expected = np.asarray(first(clips.x, training=False))
    # 1e-4: threads may add up a gradient in another order
    np.testing.assert_allclose(np.asarray(second(clips.x, training=False)), expected, atol=1e-4)
    assert np.abs(np.asarray(other(clips.x, training=False)) - expected).max() > 1e-3
    train.save(first, tmp_path / "kws.keras")
    assert [file.name for file in tmp_path.iterdir()] == ["kws.keras"]
    written = load(tmp_path / "kws.keras").keras
    assert written is not None
    np.testing.assert_allclose(np.asarray(written(clips.x, training=False)), expected, atol=1e-6)
