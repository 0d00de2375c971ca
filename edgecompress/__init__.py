"""Give it a Keras model; get the smallest exact microcontroller firmware, and the proof."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecompress.artifact import Artifact, Step
    from edgecompress.budget import Budget
    from edgecompress.building.deployment import build
    from edgecompress.data import Dataset, Split
    from edgecompress.errors import EdgeCompressError
    from edgecompress.evaluation import compare, evaluate
    from edgecompress.measuring.measurement import measure
    from edgecompress.pipeline import compress
    from edgecompress.prune import prune_structured
    from edgecompress.prune.rounds import prune_in_rounds
    from edgecompress.quantization import quantize
    from edgecompress.recipe import Recipe
    from edgecompress.report import Report
    from edgecompress.training.cluster import cluster
    from edgecompress.training.finetune import finetune
    from edgecompress.training.qat import qat
    from edgecompress.training.sparsify import sparsify
    from edgecompress.zoo import dataset, load

__version__ = "0.1.0"

_HOME = {
    "Artifact": "artifact",
    "Budget": "budget",
    "Dataset": "data",
    "EdgeCompressError": "errors",
    "Recipe": "recipe",
    "Report": "report",
    "Split": "data",
    "Step": "artifact",
    "build": "building.deployment",
    "cluster": "training.cluster",
    "compare": "evaluation",
    "compress": "pipeline",
    "dataset": "zoo",
    "evaluate": "evaluation",
    "finetune": "training.finetune",
    "load": "zoo",
    "measure": "measuring.measurement",
    "prune_in_rounds": "prune.rounds",
    "prune_structured": "prune",
    "qat": "training.qat",
    "quantize": "quantization",
    "sparsify": "training.sparsify",
}
__all__ = [
    "Artifact",
    "Budget",
    "Dataset",
    "EdgeCompressError",
    "Recipe",
    "Report",
    "Split",
    "Step",
    "build",
    "cluster",
    "compare",
    "compress",
    "dataset",
    "evaluate",
    "finetune",
    "load",
    "measure",
    "prune_in_rounds",
    "prune_structured",
    "qat",
    "quantize",
    "sparsify",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used, so that `import edgecompress` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'edgecompress' has no attribute {name!r}")
    return getattr(importlib.import_module(f"edgecompress.{_HOME[name]}"), name)
