"""Spoken words from espeak-ng, and noise, as MFCC features with labels."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecompress.errors import ToolError
from edgecompress.progress import Progress, silent

from .clips import KEYWORDS, LABELS, SILENCE, UNKNOWN, Clips
from .mfcc import SAMPLE_RATE, Float, mfcc

# What the unknown class says: the other words of Speech Commands v0.02, near misses of the
# keywords, and everyday words.
OTHER_WORDS = tuple(
    "backward bed bird cat dog eight five follow forward four happy house learn marvin nine one"
    " seven sheila six three tree two visual wow zero"
    " town ground dawn goat low dough lift leaf let know nose new of often cough own arm an write"
    " bright rat shop top step stock cup us app yet guess yeah"
    " table water window music light door phone morning people school computer".split()
)
_SPEECH_COMMANDS_WORDS = 25

ACCENTS = tuple(
    "en-us en-gb en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029 en-us-nyc".split()
)
VARIANTS = tuple(
    "adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis"
    " Diogo ed edward edward2 Gene Gene2 Henrique Hugo Jacky john Lee Linda Marcelo Marco Mario"
    " max Michael michel Miguel mike Nguyen Pablo paul Pedro quincy rob robert steph steph2 steph3"
    " travis victor zac anika sandro shelby norbert f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8"
    " grandpa grandma klatt klatt2 klatt3 klatt4 whisper croak".split()
)
# Voices that no training clip uses: the calibration pool and the test split each have their own.
CALIBRATION_VARIANTS = ("Andrea", "david", "Hugo", "klatt3", "m5", "travis", "f4")
TEST_VARIANTS = (
    "Alicia", "benjamin", "ed", "Gene2", "Linda", "Michael", "quincy", "f2", "m3", "m7", "klatt2",
    "steph2",
)  # fmt: skip
TRAINING_VARIANTS = tuple(
    name for name in VARIANTS if name not in (*CALIBRATION_VARIANTS, *TEST_VARIANTS)
)

_RENDER_TIMEOUT_S = 20
_WORKERS = 4
_BATCH = 512


@dataclass(frozen=True)
class Utterance:
    """One clip to make: its class, and what espeak-ng says how (`word` is empty for silence)."""

    label: int
    word: str
    accent: str = ""
    variant: str = ""
    pitch: int = 50
    words_per_minute: int = 160


def plan(per_class: int, *, variants: Sequence[str], seed: int) -> tuple[Utterance, ...]:
    """`per_class` utterances of each of the 12 classes, with random voices, pitches and rates."""
    rng = np.random.default_rng(seed)
    return tuple(
        _utterance(label, rng, variants) for _ in range(per_class) for label in range(len(LABELS))
    )


def clips(
    utterances: Sequence[Utterance], *, seed: int, copies: int = 1, progress: Progress = silent
) -> Clips:
    """Say every utterance once and turn it into `copies` clips with different speed and noise.

    The same seed and espeak-ng version give the same clips. ToolError where espeak-ng is missing
    or fails.
    """
    program = find_espeak()
    x, y, voice = [], [], []
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(utterances), _BATCH):
            progress("speech synthesis", start, len(utterances))
            part = utterances[start : start + _BATCH]
            said = list(pool.map(lambda u: say(program, u), part))
            rng = np.random.default_rng((seed, start))
            waves = [clip(wave_, rng) for wave_ in said for _ in range(copies)]
            x.append(mfcc(np.stack(waves)))
            y += [u.label for u in part for _ in range(copies)]
            voice += [u.variant for u in part for _ in range(copies)]
    progress("speech synthesis", len(utterances), len(utterances))
    return Clips(np.concatenate(x), np.array(y, np.int64), np.array(voice))


def find_espeak() -> str:
    """The path of espeak-ng, or ToolError that says how to install it."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise ToolError(
            "kws: training speaks its words with espeak-ng, which is not installed;"
            " install it (apt install espeak-ng, brew install espeak-ng) and try again"
        )
    return program


def say(program: str, utterance: Utterance) -> Float:
    """What espeak-ng says, float32 at 16 kHz, without the silence at both ends; empty for none."""
    if not utterance.word:
        return np.zeros(0, np.float32)
    command = [
        program,
        *("-v", f"{utterance.accent}+{utterance.variant}"),
        *("-p", str(utterance.pitch)),
        *("-s", str(utterance.words_per_minute)),
        *("--stdout", utterance.word),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, check=True, timeout=_RENDER_TIMEOUT_S
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{' '.join(command)}: no answer in {_RENDER_TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip()[-200:]
        raise ToolError(f"{' '.join(command)}: exit status {error.returncode}: {last}") from error
    return _trim(resample(*_read_wave(done)))


def resample(samples: Float, rate: float) -> Float:
    """`samples` taken at `rate` Hz, band-limited to 16 kHz by cutting or padding the spectrum."""
    target = round(len(samples) * SAMPLE_RATE / rate)
    spectrum = np.fft.rfft(samples)[: target // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, target) * (target / len(samples)), np.float32)


def clip(word: Float, rng: np.random.Generator) -> Float:
    """One second at 16 kHz: the word (empty for silence) at a random speed and place, in a room,
    through a microphone, over noise.
    """
    second = np.zeros(SAMPLE_RATE, np.float32)
    if len(word):
        speed = rng.uniform(0.85, 1.18)
        word = resample(word, SAMPLE_RATE * speed)
        word = _room(word, rng) if rng.random() < 0.5 else word
        start = _start(len(word), rng)
        source = word[max(0, -start) : SAMPLE_RATE - start]
        second[max(0, start) : max(0, start) + len(source)] = source
        second /= max(float(np.abs(second).max()), 1e-9)
    noise = noise_like(rng)
    level = 10.0 ** (rng.uniform(-60.0, -8.0) / 20.0) if len(word) else 1.0
    return _microphone(second + level * noise, rng)


def noise_like(rng: np.random.Generator) -> Float:
    """One second of background noise with peak 1: coloured noise, with swells, hum or clicks."""
    spectrum = np.fft.rfft(rng.standard_normal(SAMPLE_RATE))
    hertz = np.arange(len(spectrum)) + 20.0
    spectrum *= hertz ** rng.uniform(-1.2, 0.2) * _smooth_gain(len(spectrum), rng, 0.5)
    noise = np.fft.irfft(spectrum, SAMPLE_RATE)
    noise /= np.abs(noise).max()
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    if rng.random() < 0.4:
        noise *= 1.0 + 0.9 * np.sin(2.0 * np.pi * (rng.uniform(0.3, 6.0) * time + rng.random()))
    if rng.random() < 0.3:
        tone = rng.choice([50.0, 60.0, rng.uniform(80.0, 2000.0)])
        for harmonic in range(1, 6):
            size = rng.uniform(0.0, 0.6) / harmonic
            noise += size * np.sin(2.0 * np.pi * (tone * harmonic * time + rng.random()))
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 6))):
            at, length = int(rng.integers(SAMPLE_RATE - 800)), int(rng.integers(40, 800))
            click = rng.standard_normal(length) * np.exp(-np.arange(length) * 5.0 / length)
            noise[at : at + length] += rng.uniform(0.3, 2.0) * click
    return np.asarray(noise / np.abs(noise).max(), np.float32)


def _utterance(label: int, rng: np.random.Generator, variants: Sequence[str]) -> Utterance:
    if label == SILENCE:
        return Utterance(label, "")
    if label == UNKNOWN:
        # two of three unknown clips say one of the words that Speech Commands has
        common = _SPEECH_COMMANDS_WORDS if rng.random() < 0.67 else len(OTHER_WORDS)
        word = OTHER_WORDS[int(rng.integers(common))]
    else:
        word = KEYWORDS[label]
    return Utterance(
        label,
        word,
        ACCENTS[int(rng.integers(len(ACCENTS)))],
        variants[int(rng.integers(len(variants)))],
        pitch=int(rng.integers(15, 90)),
        words_per_minute=int(rng.integers(110, 230)),
    )


def _read_wave(data: bytes) -> tuple[Float, float]:
    # espeak-ng writes a stream: the length in the header is not the true one
    with wave.open(io.BytesIO(data)) as file:
        samples = np.frombuffer(file.readframes(len(data)), "<i2")
        return samples.astype(np.float32) / 32768.0, file.getframerate()


def _trim(samples: Float) -> Float:
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=0.0))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def _start(length: int, rng: np.random.Generator) -> int:
    room = SAMPLE_RATE - length
    shift = rng.uniform(-0.15, 0.15) * SAMPLE_RATE
    return int(np.clip(room / 2 + shift, min(0, room) - 800, max(0, room) + 800))


def _room(word: Float, rng: np.random.Generator) -> Float:
    seconds = rng.uniform(0.02, 0.25)
    time = np.arange(int(seconds * 1.5 * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.standard_normal(len(time)) * np.exp(-6.9 * time / seconds) * rng.uniform(0.02, 0.2)
    echo[0] = 1.0
    length = len(word) + len(echo)
    wet = np.fft.irfft(np.fft.rfft(word, length) * np.fft.rfft(echo, length), length)
    return np.asarray(wet[: len(word) + len(echo) // 2], np.float32)


def _microphone(samples: Float, rng: np.random.Generator) -> Float:
    spectrum = np.fft.rfft(samples)
    hertz = np.arange(len(spectrum)) * SAMPLE_RATE / len(samples)
    cut = rng.uniform(10.0, 120.0)
    spectrum *= _smooth_gain(len(spectrum), rng, 0.5) * hertz / (hertz + cut)
    return np.asarray(np.fft.irfft(spectrum, len(samples)), np.float32)


def _smooth_gain(bins: int, rng: np.random.Generator, nepers: float) -> npt.NDArray[np.float64]:
    """A random frequency response with six knots on a logarithmic scale."""
    knots = np.geomspace(60.0, 8000.0, 6)
    hertz = np.linspace(0.0, SAMPLE_RATE / 2, bins)
    return np.exp(np.interp(hertz, knots, rng.normal(0.0, nepers, len(knots))))
