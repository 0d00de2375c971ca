"""MFCC features of the MLPerf Tiny keyword-spotting reference, in numpy.

One second at 16 kHz becomes 49 frames of 10 coefficients: divide by the maximum, frames of 480
samples every 320, periodic Hann window, 512-point magnitude spectrum, 40 HTK mel bands from 20 to
4000 Hz, natural logarithm, DCT-II. Source: mlcommons/tiny, benchmark/training/keyword_spotting/
get_dataset.py, and tf.signal (linear_to_mel_weight_matrix, mfccs_from_log_mel_spectrograms).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
FRAMES, COEFFICIENTS, BANDS = 49, 10, 40

_WINDOW, _STEP, _FFT = 480, 320, 512
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 4000.0
_LOG_OFFSET = 1e-6
_CHUNK = 256


def mfcc(waves: Float) -> Float:
    """MFCC of one-second clips: (N, 16000) float at 16 kHz gives float32 (N, 49, 10, 1).

    The scale of a clip is free, it is divided by its maximum (not by its largest magnitude, as in
    the reference); a clip without a positive sample is taken as it is.
    """
    parts = [_mfcc(waves[i : i + _CHUNK]) for i in range(0, len(waves), _CHUNK)]
    return np.concatenate([np.zeros((0, FRAMES, COEFFICIENTS, 1), np.float32), *parts])


def mel_matrix() -> npt.NDArray[np.float64]:
    """Triangular mel filters, (257 bins, 40 bands), equal to tf.signal's; the DC bin is unused."""
    bins = _mel(np.linspace(0.0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(np.array(_LOWEST_HZ)), _mel(np.array(_HIGHEST_HZ)), BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return np.asarray(weights)


def cosines(place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The ten DCT-II basis functions with tf.signal's scale at places 0..40 of the mel axis.

    `place` (..., 1) gives (..., 10). Over the 40 band centres the columns are orthogonal, with
    norm 1, the first with norm sqrt(2).
    """
    order = np.arange(COEFFICIENTS)
    return np.asarray(np.cos(np.pi * order * place / BANDS) * 2.0 / np.sqrt(2.0 * BANDS))


def dct_matrix() -> npt.NDArray[np.float64]:
    """The DCT-II as a matrix, (40 bands, 10 coefficients)."""
    return cosines(np.arange(BANDS)[:, None] + 0.5)


def _mfcc(waves: Float) -> Float:
    peak = waves.max(axis=1, keepdims=True)
    scaled = waves / np.where(peak > 0.0, peak, 1.0)
    frames = np.lib.stride_tricks.sliding_window_view(scaled, _WINDOW, axis=1)[:, ::_STEP]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(_WINDOW) / _WINDOW)
    magnitude = np.abs(np.fft.rfft(frames * hann, _FFT))
    coefficients = np.log(magnitude @ mel_matrix() + _LOG_OFFSET) @ dct_matrix()
    return np.asarray(coefficients[..., None], np.float32)


def _mel(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(hertz / 700.0))
