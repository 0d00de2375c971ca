"""The operators of the compressed model, as a report carries them."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.report.checks import ReportError, at_least
from edgecompress.tflite.account import Account


@dataclass(frozen=True)
class OperatorRow(Account):
    """One operator of the flatbuffer, in execution order: its Account, and what it costs in
    precision.

    `sqnr_db` is the quantisation error in dB and `max_abs` its largest absolute value, against the
    float activations of its layer. Both are None where no tensor could be matched to the layer; an
    error of 0, whose SQNR is infinite, has `max_abs` 0 and no `sqnr_db`.
    """

    sqnr_db: float | None
    max_abs: float | None

    def __post_init__(self) -> None:
        at_least(0, macs=self.macs, weights=self.weights, zeros=self.zeros)
        at_least(0, weight_bytes=self.weight_bytes, activation_bytes=self.activation_bytes)
        at_least(0, live_bytes=self.live_bytes, max_abs=self.max_abs)
        at_least(1, bits=self.bits)
        at_least(self.weights, params=self.params)
        if self.zeros > self.weights:
            raise ReportError(f"zeros = {self.zeros}: more than {self.weights} weights")

    @property
    def sparsity(self) -> float | None:
        """The share of the weights that are 0; None without weights."""
        return self.zeros / self.weights if self.weights else None
