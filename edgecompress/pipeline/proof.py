"""What the device computes: the TFLM interpreter, against the reference kernels, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecompress import runtimes
from edgecompress.data import Float
from edgecompress.evaluation import compare, first_difference
from edgecompress.report import Difference, Proof
from edgecompress.vocabulary import Kernels


@dataclass(frozen=True, eq=False)
class OnDevice:
    """TFLM's outputs, float32, for the rows `picked` of the split, the exact arena in bytes, and
    the proof (None where the outputs are not integers)."""

    picked: npt.NDArray[np.int64]
    values: Float
    arena: int | None
    proof: Proof | None


@dataclass(frozen=True, eq=False)
class Running:
    """The TFLM interpreter at work, and the reference kernels where they do not judge all rows
    of the split anyway (`reference` is None then)."""

    model: bytes
    picked: npt.NDArray[np.int64]
    rows: Float
    subject: runtimes.Job
    reference: runtimes.Job | None

    def finish(self, judged: runtimes.Outcome) -> OnDevice:
        """Wait for the workers and compare; `judged` are the outputs for the whole split.

        Raises the errors of `runtimes.Job.result`.
        """
        subject = self.subject.result()
        reference, rows = judged, self.picked
        if self.reference is not None:
            reference, rows = self.reference.result(), np.arange(len(self.rows))
        proof = None
        if subject.raw.dtype.kind in "iu":
            proof = self._proof(reference, reference.raw[rows], subject)
        return OnDevice(self.picked, subject.values, subject.arena, proof)

    def _proof(
        self,
        reference: runtimes.Outcome,
        expected: npt.NDArray[Any],
        subject: runtimes.Outcome,
    ) -> Proof:
        bits = compare(expected, subject.raw)
        at = None if bits.exact == bits.elements else first_difference(self.model, self.rows)
        where = None
        if at is not None:
            where = Difference(at.kind, at.layer, at.mismatch, at.elements, at.max_diff)
        return Proof(
            reference=reference.label,
            subject=subject.label,
            samples=len(self.rows),
            elements=bits.elements,
            exact=bits.exact,
            off_by_one=bits.off_by_one,
            mismatch=bits.mismatch,
            max_diff=bits.max_diff,
            differs_at=where,
        )


def start(model: bytes, x: Float, *, samples: int, kernels: Kernels) -> Running:
    """Start to run `model` on `samples` rows of `x` (N, *input_shape), evenly spread over it.

    Spread, so that data sorted by class is covered too. `kernels` says how the whole split is
    judged elsewhere: `exact` spares a second run of the reference kernels here.
    """
    count = min(len(x), samples)
    picked = np.arange(count) * len(x) // count
    rows = x[picked]
    subject = runtimes.submit(model, rows, runtime="tflm")
    reference = None if kernels == "exact" else runtimes.submit(model, rows)
    return Running(model, picked, rows, subject, reference)
