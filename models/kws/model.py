"""Keyword spotting: the MLPerf Tiny DS-CNN with our own weights.

The committed calibration pool and test split are synthesised speech of voices that training never
heard. Where EC_DATA_DIR has Speech Commands clips, two splits of real speech are added.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecompress import zoo
from edgecompress.data import Array, Dataset, Float, Rows, Split, Training
from edgecompress.progress import Progress, silent

from . import real, synth
from .augment import augment
from .clips import LABELS, SILENCE, Clips, joined

WEIGHTS, EVALUATION = "kws.keras", "eval.npz"

TRAINING_PER_CLASS, TRAINING_COPIES = 600, 2
TEST_PER_CLASS, CALIBRATION_PER_CLASS = 40, 17
SYNTHETIC_COPIES = 4
"""How often a recipe that trains sees each synthesised clip for each real one."""
VALIDATION_SHARE = 0.1
"""Of the speakers heard, for the validation that says when to stop."""


def model(folder: Path) -> Path:
    """The committed weights."""
    return folder / WEIGHTS


def dataset(folder: Path) -> Dataset:
    """The committed synthesised sets, and the real ones where EC_DATA_DIR has them."""
    with np.load(folder / EVALUATION, allow_pickle=False) as data:
        pool = data["pool_x"].astype(np.float32)
        pool_labels = data["pool_y"].astype(np.int64)
        test = data["test_x"].astype(np.float32)
        labels = data["test_y"].astype(np.int64)
    return Dataset(
        name="kws",
        metric="top1",
        pool=pool,
        test=Split("synthesised", test, labels, "espeak-ng voices that training never heard"),
        extra=tuple(_real_splits()),
        labels=LABELS,
        pool_y=pool_labels,
        training=lambda: _training(Clips(pool, pool_labels, np.full(len(pool), ""))),
    )


def _training(synthetic: Clips) -> Training:
    """Real clips where EC_DATA_DIR has them, with `synthetic` ones SYNTHETIC_COPIES times; without
    them these alone. Some speakers are held out for the validation."""
    file = zoo.data_file(real.CLIPS)
    if file is None:
        heard, held = real.apart(synthetic, share=2 * VALIDATION_SHARE)
        source = "synthesised clips of the calibration pool, held out"
    else:
        heard, held = real.apart(real.split_by_speaker(file)[0], share=VALIDATION_SHARE)
        source = "Speech Commands, further speakers held out"
        heard = joined([heard, *[synthetic] * SYNTHETIC_COPIES])
    noise = heard.x[heard.y == SILENCE]

    def changed(x: Float, y: Array | None, rng: np.random.Generator) -> Float:
        return augment(x, noise, rng)

    return Training(Rows(heard.x, heard.y), Split("stop", held.x, held.y, source), changed)


def train(folder: Path, *, seed: int = 0, progress: Progress = silent) -> None:
    """Make `kws.keras` from real and synthesised speech, and `eval.npz` where it is missing.

    Needs espeak-ng (ToolError) and EC_DATA_DIR (ConfigError).
    """
    from .slim import slim
    from .train import fit, save

    heard, _ = real.split_by_speaker(real.need_clips())
    synth.find_espeak()
    if not (folder / EVALUATION).exists():
        write_evaluation(folder / EVALUATION, progress=progress)
    said = synth.clips(
        synth.plan(TRAINING_PER_CLASS, variants=synth.TRAINING_VARIANTS, seed=seed),
        seed=seed,
        copies=TRAINING_COPIES,
        progress=progress,
    )
    full = fit(heard, said, seed=seed, progress=progress)
    save(slim(full, heard, said, seed=seed, progress=progress), folder / WEIGHTS)


def write_evaluation(file: Path, *, progress: Progress = silent) -> None:
    """Synthesise the test split and the calibration pool, each with voices of its own."""
    test = _balanced(TEST_PER_CLASS, synth.TEST_VARIANTS, 1, progress)
    pool = _balanced(CALIBRATION_PER_CLASS, synth.CALIBRATION_VARIANTS, 2, progress)
    np.savez_compressed(
        file,
        test_x=test.x.astype(np.float16),
        test_y=test.y.astype(np.uint8),
        test_voice=test.speaker,
        pool_x=pool.x.astype(np.float16),
        pool_y=pool.y.astype(np.uint8),
        pool_voice=pool.speaker,
    )


def _balanced(per_class: int, variants: tuple[str, ...], seed: int, progress: Progress) -> Clips:
    said = synth.plan(per_class, variants=variants, seed=seed)
    return synth.clips(said, seed=seed, progress=progress)


def _real_splits() -> list[Split]:
    splits = []
    accuracy_set = zoo.data_file(real.ACCURACY_SET)
    if accuracy_set is not None:
        unseen = real.unseen_speakers(accuracy_set)
        source = "MLPerf Tiny accuracy set, speakers that training never heard"
        splits.append(Split("kws01_unseen", unseen.x, unseen.y, source))
    clips = zoo.data_file(real.CLIPS)
    if clips is not None:
        _, held = real.split_by_speaker(clips)
        source = "Speech Commands, speakers held out of training"
        splits.append(Split("validation", held.x, held.y, source))
    return splits
