"""Image and sound files as rows."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress.data import Float
from edgecompress.errors import ConfigError

IMAGES = (".bmp", ".jpeg", ".jpg", ".png")
SOUNDS = (".wav",)

Shape = tuple[int | None, ...]
Reader = Callable[[Path], Float]
"""A file -> the row (*input_shape)."""

_BROKEN = (wave.Error, EOFError, OSError, ValueError, struct.error)
_SCALE = {1: 2.0**7, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}
"""What full scale is, by bytes of a sample."""


def images(shape: Shape, features: Callable[..., Any] | None) -> Reader:
    """What reads an image as a row of `shape` (height, width, channels), or as what `features`
    makes of it.

    ConfigError where a model takes rows of another shape and there are no features.
    """
    fits = len(shape) == 3 and None not in shape and shape[-1] in (1, 3, 4)
    if not fits and features is None:
        raise ConfigError(
            f"images for a model that takes {shape}: it must be (height, width, channels) with 1, 3"
            " or 4 channels; make other rows with --features my_file.py:function"
        )

    def read(file: Path) -> Float:
        pixels = _pixels(file, shape if fits else None)
        return pixels if features is None else features(pixels)

    return read


def waveforms(first: Path, shape: Shape, features: Callable[..., Any] | None) -> Reader:
    """What reads a sound of the sample rate that `first` has as a row of `shape` (L,) or (L, 1), or
    as what `features` makes of it.

    ConfigError where a model takes rows of another shape and there are no features.
    """
    fits = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    length = shape[0] if fits else None
    if length is None and features is None:
        raise ConfigError(
            f"sounds for a model that takes {shape}: it must be (length,) or (length, 1); make"
            " other rows, such as a spectrogram, with --features my_file.py:function"
        )
    size = length or 0
    _, rate = _samples(first)

    def read(file: Path) -> Float:
        samples, own = _samples(file)
        if own != rate:
            raise ConfigError(
                f"{file}: {own} samples a second, but {first} has {rate}; resample it"
            )
        if features is not None:
            made: Float = features(samples, rate)
            return made
        row = np.zeros((size, 1)[: len(shape)], np.float32)
        row.reshape(-1)[: len(samples)] = samples[:size]
        return row

    return read


def _pixels(file: Path, shape: Shape | None) -> Float:
    """An image, float32 (height, width, channels) from 0 to 255; of `shape` where it is given."""
    import tensorflow as tf

    try:
        image = tf.io.decode_image(file.read_bytes(), expand_animations=False)
        channels = image.shape[-1] if shape is None else shape[-1]
        image = _channels(tf.cast(image, tf.float32), channels)
    except (tf.errors.OpError, OSError, ValueError) as error:
        reason = str(error).split(" [Op:")[0].splitlines()[0]
        raise ConfigError(
            f"{file}: not a readable image ({reason}); copy it again, or take it away"
        ) from error
    if shape is not None and tuple(image.shape) != shape:
        image = tf.image.resize(image, shape[:2], antialias=True)
    return np.asarray(image)


def _channels(image: Any, count: int | None) -> Any:
    """The image with `count` channels: grey, colour or colour with opacity."""
    import tensorflow as tf

    colour, opacity = image[..., :3], image[..., 3:]
    if image.shape[-1] == 2:
        colour, opacity = image[..., :1], image[..., 1:]
    if count == 1 and colour.shape[-1] == 3:
        return tf.image.rgb_to_grayscale(colour)
    if count in (3, 4) and colour.shape[-1] == 1:
        colour = tf.image.grayscale_to_rgb(colour)
    if count == 4:
        full = tf.fill((*colour.shape[:2], 1), 255.0)
        return tf.concat([colour, opacity if opacity.shape[-1] else full], axis=-1)
    return colour


def _samples(file: Path) -> tuple[Float, int]:
    """A sound, float32 from -1 to 1, the mean of its channels, and its sample rate in Hz."""
    try:
        with wave.open(str(file), "rb") as sound:
            channels, width, rate, frames, _, _ = sound.getparams()
            data = sound.readframes(frames)
        if len(data) != frames * channels * width or not frames or width not in _SCALE:
            raise ValueError(f"{len(data)} bytes for {frames} frames of {channels} x {width}")
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{file}: not a readable WAV ({reason}); save it again, as PCM, or take it away"
        ) from error
    if width == 1:
        whole = np.frombuffer(data, np.uint8).astype(np.int32) - 128
    elif width == 3:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        whole = wide.view("<i4")[:, 0] >> 8
    else:
        whole = np.frombuffer(data, f"<i{width}")
    mono = (whole / _SCALE[width]).reshape(-1, channels).mean(axis=1)
    return mono.astype(np.float32), rate
