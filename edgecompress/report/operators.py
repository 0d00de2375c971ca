"""The operators of the compressed model, as a report carries them."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.report.checks import ReportError, at_least


@dataclass(frozen=True)
class OperatorRow:
    """One operator of the flatbuffer, in execution order: what it holds, computes, and costs in
    precision.

    `layer` is the Keras layer it comes from ("" where unknown), `shape` that of its first output,
    batch included. `params` are the elements of weights and biases, `weights` those of the weights
    alone, `zeros` how many of these are 0, `weight_bytes` what weights and biases take in the file
    (shared ones count for the first operator that reads them), `bits` the fewest that hold every
    weight, None without integer weights. `activation_bytes` is what its outputs take,
    `live_bytes` all activations alive while it runs.

    `sqnr_db` is the quantisation error in dB and `max_abs` its largest absolute value, against the
    float activations of its layer. Both are None where no tensor could be matched to the layer; an
    error of 0, whose SQNR is infinite, has `max_abs` 0 and no `sqnr_db`.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    params: int
    weights: int
    zeros: int
    weight_bytes: int
    bits: int | None
    activation_bytes: int
    live_bytes: int
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
