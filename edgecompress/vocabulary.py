"""The words that recipes, the command line and the stages share; free of imports."""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["top1", "auc", "mse"]
METRICS: tuple[Metric, ...] = get_args(Metric)

ScoreName = Literal["l1", "l2", "random", "bn_gamma", "geometric_median", "taylor", "obs"]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)
Scope = Literal["global", "layer", "predicted", "sensitivity"]
"""How much of each group goes: as one ranking of all channels has it, the same ratio of each, by
the predicted errors of the repaired layers, or by what the outputs lose with each group."""
Target = Literal["ratio", "macs", "params", "flash", "ram", "instructions"]
TARGETS: tuple[Target, ...] = get_args(Target)
"""What pruning aims at."""
Repair = Literal["none", "mean", "merge", "lbyl", "udfc", "activation"]
REPAIRS: tuple[Repair, ...] = get_args(Repair)
"""How what reads removed channels is made to do without them."""
Unknown = Literal["error", "barrier"]
"""What an unknown layer is: an error, or a barrier that protects its channels."""

Schedule = Literal["cosine", "constant", "step"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
"""How the learning rate falls: along half a cosine, not at all, to a tenth at 1/2 and 3/4."""
Optimizer = Literal["adamw", "sgd"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
ClassWeights = Literal["none", "balanced"]
CLASS_WEIGHTS: tuple[ClassWeights, ...] = get_args(ClassWeights)
"""How much the classes of rare rows count: as many rows as there are, or each class alike."""
Pattern = Literal["unstructured", "1:2", "1:4", "2:4", "pairs", "quads"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
"""Which weights become zero: any; all but n of each m along the inputs; whole pairs or quads of
neighbouring input channels."""
Ramp = Literal["polynomial", "constant"]
RAMPS: tuple[Ramp, ...] = get_args(Ramp)
"""How sparsity comes: along a cubic from 0 (Zhu and Gupta, arXiv:1710.01878), or at once."""
Centroids = Literal["kmeans++", "linear", "density"]
CENTROIDS: tuple[Centroids, ...] = get_args(Centroids)
"""Where the centroids of clustered weights start."""

Mode = Literal["int8", "int16x8", "float16", "dynamic", "float32"]
MODES: tuple[Mode, ...] = get_args(Mode)
Calibration = Literal["samples", "data-free", "distilled"]
CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)
"""Where the activations' ranges come from: samples, the weights alone, inputs made from them."""
Source = Literal["samples", "data-free", "distilled", "trained"]
"""Where those of a conversion do: as a recipe says, or from training with fake quantisation."""
Rounding = Literal["nearest", "squant", "compensated"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
"""How weights go onto their grid: each to its nearest value, with small sums of errors, or one
making up for the error of another."""
Kernels = Literal["exact", "fast"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)
"""The reference kernels of a runtime, or its default ones."""
IoType = Literal["int8", "uint8", "int16", "float32"]
"""Element types of a model's inputs and outputs."""
IO_TYPES: dict[Mode, tuple[IoType, ...]] = {
    "int8": ("int8", "uint8", "float32"),
    "int16x8": ("int16", "float32"),
    "float16": ("float32",),
    "dynamic": ("float32",),
    "float32": ("float32",),
}
"""Those that each mode can have, its own first."""

Backend = Literal["aot", "tflm"]
Core = Literal["plain", "dsp", "mve"]
"""What instructions a core has: no SIMD, those of the Armv7E-M DSP extension, Helium too."""
Optimize = Literal["balanced", "ram", "size", "speed"]
OPTIMIZE: tuple[Optimize, ...] = get_args(Optimize)
"""What the ahead-of-time C gives up the others for."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
