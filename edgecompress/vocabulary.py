"""The words that recipes, the command line and the stages share; free of imports."""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["top1", "auc", "mse"]
METRICS: tuple[Metric, ...] = get_args(Metric)

ScoreName = Literal["l1", "l2", "random", "bn_gamma", "geometric_median", "taylor"]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)
Scope = Literal["global", "layer"]
Unknown = Literal["error", "barrier"]
"""What an unknown layer is: an error, or a barrier that protects its channels."""

Mode = Literal["int8", "int16x8", "float16", "dynamic", "float32"]
MODES: tuple[Mode, ...] = get_args(Mode)
Kernels = Literal["exact", "fast"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)
"""The reference kernels of a runtime, or its default ones."""
IoType = Literal["int8", "uint8", "int16", "float32"]
"""Element types of a model's inputs and outputs."""

Backend = Literal["aot", "tflm"]
Core = Literal["plain", "dsp", "mve"]
"""What instructions a core has: no SIMD, those of the Armv7E-M DSP extension, Helium too."""
Optimize = Literal["balanced", "ram", "size", "speed"]
OPTIMIZE: tuple[Optimize, ...] = get_args(Optimize)
"""What the ahead-of-time C gives up the others for."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
