"""Recipes: the stages of a run as data, from recipe.toml, by name, or spelled."""

from edgecompress.recipe.library import RECIPES, SPELLED, find, named
from edgecompress.recipe.recipe import STAGES, Recipe
from edgecompress.recipe.settings import (
    Cluster,
    Evaluate,
    Finetune,
    Prune,
    Qat,
    Quantize,
    Sparsify,
    Train,
)

__all__ = [
    "RECIPES",
    "SPELLED",
    "STAGES",
    "Cluster",
    "Evaluate",
    "Finetune",
    "Prune",
    "Qat",
    "Quantize",
    "Recipe",
    "Sparsify",
    "Train",
    "find",
    "named",
]
