"""The kws model: its features, its synthesised speech, its augmentation, its committed files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import prune, zoo
from edgecompress.data import Dataset
from edgecompress.errors import ConfigError, ToolError
from edgecompress.recipe import Recipe
from models.kws import augment, mfcc, real, slim, synth, train
from models.kws.clips import LABELS, SILENCE, UNKNOWN, Clips
from tests.conftest import need

PINNED_MIDDLE = (-40.152, 2.634, -17.439, -1.383, 6.924, 1.327, -5.485, -1.109, 4.230, 2.616)
PINNED_FIRST = (-82.530, 19.535, 5.121, 1.127, -2.059, -3.200, -3.809, -3.445, -2.876, -1.950)
SYNTHESISED_FLOOR = 0.91

NOTHING = augment.Strength(
    shift_frames=0, stretch=0, warp=0, gain=0, tilt=0, noisy=0, masked=0, jitter=0
)


@pytest.fixture(autouse=True)
def only_committed_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EC_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def committed() -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EC_DATA_DIR", raising=False)
        return zoo.dataset("kws")


def chirp() -> mfcc.Float:
    time = np.arange(16000) / 16000
    wave = np.sin(2 * np.pi * (200 * time + 900 * time**2)) * np.hanning(16000)
    return np.asarray(wave[None], np.float32)


# --- features -----------------------------------------------------------------------------------


def test_mfcc_of_a_chirp_has_the_pinned_values() -> None:
    # checked once against tf.signal (stft, linear_to_mel_weight_matrix, mfccs_from_log_mel)
    features = mfcc.mfcc(chirp())
    assert features.shape == (1, 49, 10, 1)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[0, 24, :, 0], PINNED_MIDDLE, atol=2e-3)
    np.testing.assert_allclose(features[0, 0, :, 0], PINNED_FIRST, atol=2e-3)


def test_mfcc_does_not_depend_on_the_level_but_on_the_sign() -> None:
    wave = chirp() + 0.3 * np.abs(chirp())
    np.testing.assert_allclose(mfcc.mfcc(wave * 7), mfcc.mfcc(wave), atol=1e-3)
    # the reference divides by the maximum, not by the largest magnitude
    louder = mfcc.mfcc(-wave)[..., 0] - mfcc.mfcc(wave)[..., 0]
    gain = np.log(wave.max() / -wave.min()) * np.sqrt(2 * 40)
    np.testing.assert_allclose(louder[0, 10:40, 0], gain, atol=0.05)


def test_mfcc_of_digital_silence_is_the_floor() -> None:
    features = mfcc.mfcc(np.zeros((2, 16000), np.float32))[..., 0]
    np.testing.assert_allclose(features[..., 0], np.log(1e-6) * np.sqrt(2 * 40), rtol=1e-5)
    np.testing.assert_allclose(features[..., 1:], 0, atol=1e-4)


def test_mfcc_is_the_same_in_any_batch() -> None:
    waves = np.random.default_rng(0).standard_normal((300, 16000)).astype(np.float32)
    np.testing.assert_array_equal(mfcc.mfcc(waves)[257:259], mfcc.mfcc(waves[257:259]))
    assert mfcc.mfcc(waves[:0]).shape == (0, 49, 10, 1)


def test_mel_filters_are_unit_triangles_between_20_and_4000_hz() -> None:
    mel = mfcc.mel_matrix()
    hertz = np.linspace(0, 8000, 257)
    assert mel.shape == (257, 40)
    assert not mel[(hertz <= 20) | (hertz >= 4000)].any()
    inner = mel[(hertz > 120) & (hertz < 3800)].sum(axis=1)
    np.testing.assert_allclose(inner, 1.0)  # neighbours cross so that they add up to one


# --- augmentation -------------------------------------------------------------------------------


def some(count: int = 6) -> mfcc.Float:
    waves = np.random.default_rng(1).standard_normal((count, 16000)).astype(np.float32)
    return mfcc.mfcc(waves * np.linspace(0.01, 1, 16000, dtype=np.float32))


def test_augmentation_of_strength_zero_changes_nothing() -> None:
    x = some()
    changed = augment.augment(x, x, np.random.default_rng(0), NOTHING)
    np.testing.assert_allclose(changed, x, atol=1e-4)


@pytest.mark.parametrize(
    "strength",
    [
        {"shift_frames": 5.0},
        {"stretch": 0.2},
        {"warp": 0.1},
        {"gain": 3.0},
        {"tilt": 1.0},
        {"noisy": 1.0},
        {"masked": 1.0},
        {"jitter": 0.2},
    ],
)
def test_each_augmentation_changes_clips_and_leaves_its_input(strength: dict[str, Any]) -> None:
    x = some()
    before = x.copy()
    changed = augment.augment(x, x, np.random.default_rng(0), replace(NOTHING, **strength))
    assert changed.shape == x.shape
    assert changed.dtype == np.float32
    assert np.abs(changed - x).max(axis=(1, 2, 3)).min() > 1e-3
    np.testing.assert_array_equal(x, before)


def test_added_noise_raises_quiet_frames_and_spares_the_loudest() -> None:
    x = some()
    noise = mfcc.mfcc(np.random.default_rng(2).standard_normal((3, 16000)).astype(np.float32))
    strength = replace(NOTHING, noisy=1.0, noise_below_peak=(3.0, 3.0))
    louder = augment.augment(x, noise, np.random.default_rng(0), strength) - x
    assert (louder[:, 0, 0] > 3.0).all()
    assert (np.abs(louder[:, -1, 0]) < 3.0).all()


# --- synthesised speech -------------------------------------------------------------------------


def test_no_voice_is_in_two_sets() -> None:
    sets = (synth.TRAINING_VARIANTS, synth.CALIBRATION_VARIANTS, synth.TEST_VARIANTS)
    assert sum(map(len, sets)) == len(set().union(*sets)) == len(synth.VARIANTS)


def test_other_words_are_no_keywords() -> None:
    assert not set(synth.OTHER_WORDS) & set(LABELS)
    assert len(set(synth.OTHER_WORDS)) == len(synth.OTHER_WORDS)


def test_a_plan_is_balanced_seeded_and_says_the_words_of_its_labels() -> None:
    plan = synth.plan(5, variants=("f1", "m1"), seed=3)
    assert plan == synth.plan(5, variants=("f1", "m1"), seed=3)
    assert plan != synth.plan(5, variants=("f1", "m1"), seed=4)
    assert np.bincount([u.label for u in plan]).tolist() == [5] * 12
    for u in plan:
        if u.label == SILENCE:
            assert u.word == ""
        elif u.label == UNKNOWN:
            assert u.word in synth.OTHER_WORDS
        else:
            assert u.word == LABELS[u.label]


def test_clips_are_made_again_from_the_same_seed() -> None:
    need("espeak")
    plan = synth.plan(1, variants=("f1", "m1"), seed=0)
    first, second = (synth.clips(plan, seed=1, copies=2) for _ in range(2))
    assert first.x.shape == (24, 49, 10, 1)
    assert first.y.tolist() == [label for label in range(12) for _ in range(2)]
    np.testing.assert_array_equal(first.x, second.x)
    assert not np.array_equal(first.x[0], first.x[1])


def test_a_failing_or_missing_espeak_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "espeak-ng"
    fake.write_text("#!/bin/sh\necho no such voice >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = synth.plan(1, variants=("f1",), seed=0)
    with pytest.raises(ToolError, match=r"espeak-ng -v .*: exit status 3: no such voice"):
        synth.clips(plan, seed=0)
    fake.unlink()
    with pytest.raises(ToolError, match=r"espeak-ng, which is not installed; .*apt install"):
        synth.clips(plan, seed=0)


def test_resampling_keeps_the_pitch_and_the_level() -> None:
    time = np.arange(22050) / 22050
    out = synth.resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), 22050)
    assert len(out) == 16000
    np.testing.assert_allclose(out, np.sin(2 * np.pi * 440 * np.arange(16000) / 16000), atol=1e-3)


# --- committed files ----------------------------------------------------------------------------


def test_the_committed_sets_are_balanced_and_apart(committed: Dataset) -> None:
    assert committed.labels == LABELS
    assert committed.test.x.shape == (480, 49, 10, 1)
    assert np.bincount(committed.test.y).tolist() == [40] * 12  # type: ignore[arg-type]
    assert committed.pool.shape == (204, 49, 10, 1)
    assert np.bincount(committed.pool_y).tolist() == [17] * 12  # type: ignore[arg-type]
    assert committed.extra == ()
    rows = {row.tobytes() for row in committed.pool} | {row.tobytes() for row in committed.test.x}
    assert len(rows) == 684


def test_the_committed_sets_use_voices_of_their_own() -> None:
    with np.load(zoo.folder("kws") / "eval.npz", allow_pickle=False) as data:
        silent = {""}
        assert set(data["test_voice"]) - silent <= set(synth.TEST_VARIANTS)
        assert set(data["pool_voice"]) - silent <= set(synth.CALIBRATION_VARIANTS)
        assert np.bincount(data["pool_y"]).tolist() == [17] * 12
    assert (zoo.folder("kws") / "eval.npz").stat().st_size < 1_000_000


def test_the_committed_weights_reach_their_accuracy(committed: Dataset) -> None:
    model = zoo.artifact("kws").keras
    assert model is not None
    assert model.input_shape[1:] == (49, 10, 1)
    assert model.count_params() == 24_908
    scores = np.asarray(model(committed.test.x, training=False))
    assert (scores.argmax(axis=1) == committed.test.y).mean() > SYNTHESISED_FLOOR


def test_the_recipe_cuts_exactly_the_dead_channels(committed: Dataset) -> None:
    model = zoo.artifact("kws").keras
    assert model is not None
    dead = slim.dead(model)
    asked = Recipe.read(zoo.folder("kws") / "recipe.toml").prune
    count = sum(map(len, dead.values()))
    assert asked.ratio == pytest.approx(count / 320), f"recipe.toml: set ratio = {count / 320}"
    plan = prune.plan(
        model,
        ratio=asked.ratio,
        score=asked.score,
        scope=asked.scope,
        round_to=asked.round_to,
        min_channels=asked.min_channels,
    )
    assert plan.drops == dead
    cut = prune.cut(model, plan)
    assert cut.count_params() < 0.6 * model.count_params()
    expected = np.asarray(model(committed.test.x, training=False))
    np.testing.assert_allclose(
        np.asarray(cut(committed.test.x, training=False)), expected, atol=1e-5
    )


def test_a_closed_channel_is_dead_and_no_other() -> None:
    model = train.ds_cnn(seed=0)
    for layer in model.layers:
        layer.set_weights([w + 0.1 for w in layer.get_weights()])  # no weight is at rest
    assert slim.dead(model) == {}
    gates = slim.Gates(model)
    gates.close({"conv": (3,)})
    gates.close({"conv": (5, 60), "pointwise4": (0,)})
    before = model.count_params(), sum(np.count_nonzero(w) for w in model.get_weights())
    gates.hold()
    assert slim.dead(model) == {"conv": (3, 5, 60), "pointwise4": (0,)}
    # first: conv 41, norm 3, depthwise 10, norm 3, row 64; last: conv 65, norm 3, row 12; the
    # variance of a norm rests at 1, which counts as non-zero before and after
    changed = before[1] - sum(np.count_nonzero(w) for w in model.get_weights())
    assert (model.count_params(), changed) == (before[0], 3 * (41 + 3 + 10 + 3 + 64) + 65 + 3 + 12)


def test_training_needs_real_speech() -> None:
    with pytest.raises(ConfigError, match=r"set EC_DATA_DIR to a folder with kws/sc_train60"):
        zoo.train("kws")


# --- real speech --------------------------------------------------------------------------------


def test_no_speaker_is_in_training_and_validation(data_dir: Path) -> None:
    training, validation = real.split_by_speaker(data_dir / real.CLIPS)
    assert len(training) + len(validation) == 2995
    assert 300 < len(validation) < 700
    assert set(training.speaker) & set(validation.speaker) <= {""}
    nobody = validation.rows(validation.speaker == "")
    assert set(nobody.y) == {SILENCE}
    assert set(validation.y) == set(training.y) == set(range(12))


def test_real_splits_are_extra(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EC_DATA_DIR", str(data_dir))
    data = zoo.dataset("kws")
    assert [(s.name, len(s)) for s in data.extra] == [("kws01_unseen", 387), ("validation", 484)]
    assert data.test.name == "synthesised"


def test_clips_give_rows() -> None:
    clips = Clips(some(3), np.arange(3), np.array(["a", "b", "c"]))
    assert clips.rows(np.array([True, False, True])).speaker.tolist() == ["a", "c"]


def test_real_speech_is_there_to_train_on(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EC_DATA_DIR", str(data_dir))
    assert trainable(zoo.dataset("kws")) > 2500


def test_without_real_speech_the_pool_is_there_to_train_on(committed: Dataset) -> None:
    assert trainable(committed) > 150


def trainable(data: Dataset) -> int:
    """How many rows there are to train on, none of which is judged, nor says when to stop."""
    training = data.to_train("finetune")
    heard = np.concatenate([x for x, _ in training.rows.epoch(512, np.random.default_rng(0))])
    assert len(heard) == len(training.rows)
    judged = {row.tobytes() for split in (data.test, *data.extra) for row in split.x}
    stop = {row.tobytes() for row in training.validation.x}
    assert len(stop) > 30 and not stop & {row.tobytes() for row in heard}
    assert not judged & (stop | {row.tobytes() for row in heard})
    assert training.augment is not None
    changed = training.augment(heard[:8], None, np.random.default_rng(1))
    assert changed.shape == heard[:8].shape and not np.array_equal(changed, heard[:8])
    return len(heard)
