"""Where the time of `edgecompress compress kws` goes, against the bare sum of what it must do.

Both sides are measured in one run of this script, in CPU seconds of whole processes (children
included): machines differ, the ratio does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

REPEATS = 3

IMPORT = "import tensorflow, keras"
PREPARE = """
import tensorflow, keras
from edgecompress import pipeline
plan = pipeline.plan("kws")
"""
FLOAT = (
    PREPARE
    + """
from edgecompress.evaluation import predict
predict(plan.artifact.keras, plan.samples)
"""
)
CONVERT = (
    PREPARE
    + """
from edgecompress.quantization import quantize
quantize(plan.artifact, calibration=plan.calibration)
"""
)
RUN = """
import sys
from pathlib import Path
import numpy as np
from edgecompress import runtimes
model, x = Path(sys.argv[1]).read_bytes(), np.load(sys.argv[2])
runtimes.submit(model, x, runtime=sys.argv[3], kernels=sys.argv[4]).result()
"""


def cpu(*command: str) -> tuple[float, float]:
    """CPU and wall seconds of a command and its children; the least of REPEATS runs."""
    best = (float("inf"), float("inf"))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for _ in range(REPEATS):
        before, start = os.times(), time.monotonic()
        subprocess.run(
            command,
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        after, wall = os.times(), time.monotonic() - start
        used = (after.children_user + after.children_system) - (
            before.children_user + before.children_system
        )
        best = min(best, (used, wall))
    return best


def main() -> None:
    """Print the parts, their sum, the command, and the ratio."""
    import numpy as np

    from edgecompress import pipeline

    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        out, rows, head = f"{folder}/run", f"{folder}/x.npy", f"{folder}/head.npy"
        whole = cpu(python, "-m", "edgecompress.cli", "compress", "kws", "--json", "--out", out)
        plan = pipeline.plan("kws")
        samples = np.concatenate([split.x for split in plan.splits])
        np.save(rows, samples)
        np.save(head, samples[: plan.recipe.evaluate.tflm_samples])
        model = f"{out}/model.tflite"
        load, prepared = cpu(python, "-c", IMPORT), cpu(python, "-c", PREPARE)
        kernels = plan.recipe.evaluate.kernels
        run = (python, "-c", RUN, model)
        parts = {
            "importing TensorFlow and Keras": load[0],
            "loading the model and its data": prepared[0] - load[0],
            "float accuracy (Keras)": cpu(python, "-c", FLOAT)[0] - prepared[0],
            "one int8 conversion": cpu(python, "-c", CONVERT)[0] - prepared[0],
            "int8 accuracy and reference bits": cpu(*run, rows, "tflite", kernels)[0],
            "TFLM interpreter": cpu(*run, head, "tflm", "exact")[0],
        }
    total = sum(parts.values())
    print("## What `edgecompress compress kws` costs\n")
    print(f"CPU seconds, the least of {REPEATS} runs; {len(samples):,} samples judged.\n")
    print("| part | CPU s | share of the sum |\n|---|---|---|")
    for part, seconds in parts.items():
        print(f"| {part} | {seconds:.1f} | {seconds / total:.0%} |")
    print(f"| **sum of the parts** | **{total:.1f}** | |")
    print(f"| **the whole command** | **{whole[0]:.1f}** | **{whole[0] / total:.2f} x** |")
    print(
        f"\nWall time of the command: {whole[1] / total:.2f} x the sum of the parts. Beyond the"
        " parts it also converts the float model (the `before` figures), prunes, and traces every"
        " layer for the quantisation error."
    )


if __name__ == "__main__":
    main()
