"""The error tree: one class per kind of trouble, each with its exit code.

EdgeCompressError                 exit 1
├── ConfigError                   exit 2: recipe, budget, option: file, key, allowed keys
├── UnsupportedError              layer or operator, its name and shapes, what is supported
├── ModelFileError                unreadable, truncated, unsafe or non-finite model file
├── StageOrderError               a stage was called too early or too late
├── ToolError                     command, exit status, last lines
├── DeviceError                   board, port, phase (build, flash, connect, run), code it reports
├── MeasurementError              no or zero ticks, another model, contradicting answers
└── BudgetExceeded                exit 3: every broken limit, not only the first

A message is one line: what is wrong, where, and how to fix it.
"""

from __future__ import annotations


class EdgeCompressError(Exception):
    """Any trouble that edgecompress can explain; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(EdgeCompressError):
    """A recipe, a budget, a data file or an option is wrong."""

    exit_code = 2


class UnsupportedError(EdgeCompressError):
    """A layer or an operator that a stage or a backend cannot handle."""


class ModelFileError(EdgeCompressError):
    """A model file that is unreadable, truncated, unsafe or holds non-finite weights."""


class StageOrderError(EdgeCompressError):
    """A stage was called on an artifact that is not ready for it, or past it."""


class ToolError(EdgeCompressError):
    """An external program or worker process failed."""


class DeviceError(EdgeCompressError):
    """A board, an emulated one included, that does not start, answer or work."""


class MeasurementError(EdgeCompressError):
    """What a board sent cannot be trusted as a measurement."""


class BudgetExceeded(EdgeCompressError):
    """One or more limits of the budget are broken."""

    exit_code = 3
