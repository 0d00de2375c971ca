"""Recipes by name: `prune50-finetune-qat` spells the stages of a recipe, in their order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgecompress.errors import ConfigError
from edgecompress.recipe.recipe import Recipe
from edgecompress.recipe.settings import Cluster, Finetune, Qat, Sparsify
from edgecompress.vocabulary import PATTERNS, TARGETS, Pattern

DISTILLED = 0.7
"""Of the loss, what goes by the uncompressed model where a name says `distil`."""
MIXED = 60
"""Percent of the bytes of 8-bit weights that `mixed` without a number leaves."""

Change = Callable[[Recipe, "re.Match[str]"], Recipe]


@dataclass(frozen=True)
class Word:
    """One word of a name: an `example`, what it matches, its place in the order (words of one place
    exclude each other), what it does to a recipe, and what it `means`."""

    example: str
    pattern: str
    place: int
    change: Change
    means: str

    def match(self, text: str) -> re.Match[str] | None:
        """The match of the whole `text`, None where it is another word."""
        return re.fullmatch(self.pattern, text)


def _prune(recipe: Recipe, found: re.Match[str]) -> Recipe:
    given: Mapping[str, Any] = {
        **dict.fromkeys(TARGETS),
        "macs": 1 - _share(found["share"]),
        "rounds": int(found["rounds"] or 1),
    }
    return replace(recipe, prune=replace(recipe.prune, **given))


def _distil(recipe: Recipe, found: re.Match[str]) -> Recipe:
    return replace(recipe, finetune=Finetune(), train=replace(recipe.train, teacher=DISTILLED))


def _sparsify(pattern: Pattern) -> Change:
    return lambda recipe, found: replace(
        recipe, sparsify=Sparsify(sparsity=_share(found["share"]), pattern=pattern)
    )


def _some_of(recipe: Recipe, found: re.Match[str]) -> Recipe:
    pattern = next((p for p in PATTERNS if p == f"{found['kept']}:{found['of']}"), None)
    if pattern is None:
        known = ", ".join(f"sparse{p.replace(':', 'of')}" for p in PATTERNS if ":" in p)
        raise ConfigError(f"no such pattern; use {known}")
    return replace(recipe, sparsify=Sparsify(pattern=pattern))


def _qat(recipe: Recipe, found: re.Match[str]) -> Recipe:
    return replace(recipe, qat=Qat(weight_bits=int(found["bits"] or 8)))


def _int16x8(recipe: Recipe, _: re.Match[str]) -> Recipe:
    types: Mapping[str, Any] = {"input_type": None, "output_type": None}
    return replace(recipe, quantize=replace(recipe.quantize, mode="int16x8", **types))


def _mixed(recipe: Recipe, found: re.Match[str]) -> Recipe:
    given: dict[str, Any] = {"weight_flash": _share(found["share"] or str(MIXED))}
    if recipe.sparsify is None:  # whose zeros must stay
        given |= {"rounding": "compensated", "correct_bias": True}
    return replace(recipe, quantize=replace(recipe.quantize, **given))


def _share(percent: str) -> float:
    if not 1 <= int(percent) <= 99:
        raise ConfigError(f"{percent} percent: use 1 to 99")
    return int(percent) / 100


_PERCENT = r"(?P<share>\d{1,3})"
WORDS: Sequence[Word] = (
    Word(
        "prune50", rf"prune{_PERCENT}(x(?P<rounds>\d{{1,3}}))?", 0, _prune,
        "cut channels until 50 % of the multiply-accumulates are gone; prune50x8 in 8 rounds"
        " with training between them",
    ),
    Word(
        "finetune", "finetune", 1, lambda recipe, _: replace(recipe, finetune=Finetune()),
        "train on",
    ),
    Word(
        "distil", "distil", 1, _distil,
        f"train on, {DISTILLED:g} of the loss by the uncompressed model's outputs (in the stages"
        " behind it too)",
    ),
    Word(
        "sparse80", f"sparse{_PERCENT}", 2, _sparsify("unstructured"),
        "train while 80 % of each kernel's weights become 0",
    ),
    Word(
        "sparse2of4", r"sparse(?P<kept>\d)of(?P<of>\d)", 2, _some_of,
        "the same, 2 of each 4 neighbouring inputs staying",
    ),
    Word("pairs80", f"pairs{_PERCENT}", 2, _sparsify("pairs"), "the same, whole pairs of inputs"),
    Word("quads75", f"quads{_PERCENT}", 2, _sparsify("quads"), "the same, whole quads of inputs"),
    Word(
        "cluster16", r"cluster(?P<count>\d{1,4})", 3,
        lambda recipe, found: replace(recipe, cluster=Cluster(clusters=int(found["count"]))),
        "train with at most 16 distinct weights a kernel",
    ),
    Word(
        "qat", r"qat(?P<bits>\d{1,2})?", 4, _qat,
        "train with the int8 grids of the result; qat4 with weights of 4 bits",
    ),
    Word(
        "int16x8", "int16x8", 5, _int16x8,
        "activations of 16 bits, in inputs and outputs too",
    ),
    Word(
        "mixed60", rf"mixed({_PERCENT})?", 5, _mixed,
        f"weights of 8 or 4 bits by layer, 60 % of the bytes of 8 bits (mixed alone: {MIXED} %)",
    ),
)  # fmt: skip
"""The words of a name, in their order."""


def is_spelled(name: str) -> bool:
    """Whether `name` is meant to spell stages: one of its words is ours, or nearly."""
    return any(_word(text) is not None or _near(text) for text in name.split("-"))


def spelled(name: str, base: Recipe) -> Recipe:
    """`base` with the stages that `name` spells in place of its own.

    `prune` takes the place of the target that `base` prunes to; without it that stays. Training
    stages of `base` that are not spelled are left out; all other keys stay (as `round_to`, the
    types of inputs, `train`). Raises ConfigError for an unknown word, a wrong order, two words of
    one stage, a number out of bounds and stages that contradict each other.
    """
    found = sorted(((_known(name, text), text) for text in name.split("-")), key=_place)
    for (word, text), (other, after) in zip(found, found[1:], strict=False):
        if word.place == other.place:
            raise ConfigError(f"recipe {name!r}: {text} and {after} are one stage; keep one")
    ordered = "-".join(text for _, text in found)
    if ordered != name:
        raise ConfigError(f"recipe {name!r}: its stages run in another order; write {ordered!r}")
    recipe = replace(base, finetune=None, sparsify=None, cluster=None, qat=None)
    try:
        for word, text in found:
            match = word.match(text)
            assert match is not None
            recipe = word.change(recipe, match)
    except ConfigError as wrong:
        raise ConfigError(f"recipe {name!r}: {wrong}") from None
    return recipe


def _place(found: tuple[Word, str]) -> int:
    return found[0].place


def _known(name: str, text: str) -> Word:
    word = _word(text)
    if word is None:
        near = _near(text)
        hint = f"did you mean {near}? " if near else ""
        raise ConfigError(
            f"recipe {name!r}: {text!r} is no stage; {hint}known, in this order:"
            f" {', '.join(each.example for each in WORDS)}"
        )
    return word


def _word(text: str) -> Word | None:
    return next((word for word in WORDS if word.match(text)), None)


def _near(text: str) -> str:
    """The example of the word that `text` nearly is, numbers aside; "" where there is none."""
    stems = {_stem(word.example): word.example for word in reversed(WORDS)}
    return next((stems[s] for s in difflib.get_close_matches(_stem(text), stems, 1, 0.75)), "")


def _stem(text: str) -> str:
    return re.split(r"\d", text)[0]
