"""Random changes to MFCC clips: as if said by another voice, faster, elsewhere in the second, in
another room, over noise.

Only 10 of 40 cepstral coefficients are left, so every change is made where it is simple and
carried over: time on frames, level and microphone on coefficients, voice and noise on the smooth
log-mel spectrum that the coefficients describe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mfcc import BANDS, COEFFICIENTS, FRAMES, Float, cosines, dct_matrix

_DCT = dct_matrix()
_SQUARES = (_DCT**2).sum(axis=0)
_INVERSE = (_DCT / _SQUARES).T
"""(10, 40): from coefficients back to the smooth log-mel spectrum."""


@dataclass(frozen=True)
class Strength:
    """How far clips are changed; each range is drawn uniformly or is a standard deviation."""

    shift_frames: float = 5.0
    stretch: float = 0.15
    warp: float = 0.12
    gain: float = 4.0
    tilt: float = 0.9
    noisy: float = 0.5
    noise_below_peak: tuple[float, float] = (0.5, 5.0)
    masked: float = 0.3
    mask_frames: int = 8
    jitter: float = 0.25


def augment(
    x: Float, noise: Float, rng: np.random.Generator, strength: Strength | None = None
) -> Float:
    """Changed copies of the clips `x`, float32 (N, 49, 10, 1); `x` itself stays as it is.

    `noise` (M, 49, 10, 1) are clips without speech, mixed into some of `x` at a level of
    `noise_below_peak` nepers under the loudest frame.
    """
    s = strength if strength is not None else Strength()
    clips = _stretch_and_shift(x[..., 0], rng, s)
    clips = _warp(clips, rng, s)
    clips = _add_noise(clips, noise[..., 0], rng, s)
    clips = _colour(clips, rng, s)
    clips = _mask(clips, rng, s)
    clips = clips + s.jitter * rng.standard_normal(clips.shape, np.float32)
    return np.asarray(clips[..., None], np.float32)


def _stretch_and_shift(clips: Float, rng: np.random.Generator, s: Strength) -> Float:
    count, centre = len(clips), (FRAMES - 1) / 2
    speed = np.exp(rng.uniform(-s.stretch, s.stretch, (count, 1)))
    shift = rng.uniform(-s.shift_frames, s.shift_frames, (count, 1))
    at = np.clip((np.arange(FRAMES) - centre - shift) * speed + centre, 0, FRAMES - 1)
    below = np.minimum(at.astype(int), FRAMES - 2)
    part = (at - below)[..., None].astype(np.float32)
    row = np.arange(count)[:, None]
    return np.asarray(clips[row, below] * (1 - part) + clips[row, below + 1] * part)


def _warp(clips: Float, rng: np.random.Generator, s: Strength) -> Float:
    """Stretch the mel axis, as a longer or shorter vocal tract does."""
    factor = np.exp(rng.uniform(-s.warp, s.warp, (len(clips), 1, 1)))
    place = np.minimum((np.arange(BANDS) + 0.5)[:, None] * factor, BANDS)
    matrix = np.einsum("nbk,bj->nkj", cosines(place) / _SQUARES, _DCT)
    return np.asarray(clips @ matrix.astype(np.float32))


def _add_noise(clips: Float, noise: Float, rng: np.random.Generator, s: Strength) -> Float:
    chosen = np.flatnonzero(rng.random(len(clips)) < s.noisy)
    inverse, dct = _INVERSE.astype(np.float32), _DCT.astype(np.float32)
    speech = clips[chosen] @ inverse
    other = noise[rng.integers(len(noise), size=len(chosen))] @ inverse
    below = rng.uniform(*s.noise_below_peak, (len(chosen), 1, 1)).astype(np.float32)
    level = speech.max((1, 2), keepdims=True) - other.max((1, 2), keepdims=True) - below
    result = clips.copy()
    result[chosen] += (np.logaddexp(speech, other + level) - speech) @ dct
    return result


def _colour(clips: Float, rng: np.random.Generator, s: Strength) -> Float:
    """Another level and another microphone: an offset on each coefficient."""
    spread = s.tilt / np.sqrt(np.arange(1.0, COEFFICIENTS + 1))
    spread[0] = s.gain
    offset = rng.standard_normal((len(clips), 1, COEFFICIENTS)) * spread
    return np.asarray(clips + offset.astype(np.float32))


def _mask(clips: Float, rng: np.random.Generator, s: Strength) -> Float:
    """Replace a few frames of some clips by the clip's mean (SpecAugment, arXiv:1904.08779)."""
    width = np.where(
        rng.random(len(clips)) < s.masked, rng.integers(1, s.mask_frames + 1, len(clips)), 0
    )
    start = rng.integers(0, FRAMES - s.mask_frames, len(clips))
    frame = np.arange(FRAMES)
    hidden = (frame >= start[:, None]) & (frame < (start + width)[:, None])
    mean = clips.mean(axis=1, keepdims=True)
    return np.asarray(np.where(hidden[..., None], mean, clips))
