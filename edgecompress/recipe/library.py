"""Recipes by what they are called: a file, one that comes with us, or stages spelled."""

from __future__ import annotations

from pathlib import Path

from edgecompress.errors import ConfigError
from edgecompress.recipe.grammar import is_spelled, spelled
from edgecompress.recipe.recipe import Recipe
from edgecompress.recipe.settings import Prune

RECIPES = Path(__file__).parent / "ours"
"""A recipe.toml for every name that we know."""
SPELLED = Recipe(prune=Prune(round_to=4, min_channels=4))
"""What the stages of a name change where no other recipe says: channels in fours, which kernels
take best."""


def named(name: str) -> Path:
    """The file of a recipe: `name` itself where it is a file, else one that comes with us.

    Raises ConfigError where it is neither, naming those there are.
    """
    path = Path(name)
    if path.suffix or path.exists():
        return path
    own = RECIPES / f"{name}.toml"
    if not own.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise ConfigError(
            f"recipe {name!r}: no such file, nor a recipe of ours ({known}); stages"
            " are spelled as prune50-finetune-qat (see `edgecompress recipe`)"
        )
    return own


def find(name: str, *, base: Recipe | None = None) -> Recipe:
    """The recipe in the file `name`, that of ours of this name, or the stages that `name` spells
    (`prune50-finetune-qat`) in place of those of `base`.

    Without a `base` they come on top of SPELLED. Raises ConfigError where `name` is none of these.
    """
    ours = RECIPES / f"{name}.toml"
    if Path(name).suffix or Path(name).is_file() or ours.is_file() or not is_spelled(name):
        return Recipe.read(named(name))
    return spelled(name, SPELLED if base is None else base)
