"""Recipe, budget and the strict reader behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.errors import ConfigError
from edgecompress.recipe import Budget, Prune, Recipe, parse_size


def written(folder: Path, text: str) -> Path:
    path = folder / "file.toml"
    path.write_text(text)
    return path


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    assert Recipe.read(written(tmp_path, "")) == Recipe()
    assert not Recipe().prune.active


def test_every_section_is_read(tmp_path: Path) -> None:
    recipe = Recipe.read(
        written(
            tmp_path,
            'seed = 7\n[prune]\nratio = 0.25\nscore = "l1"\nprotect = ["a", "b"]\n'
            '[quantize]\nmode = "int16x8"\n[evaluate]\ntflm_samples = 3\n',
        )
    )
    assert recipe.seed == 7
    assert recipe.prune == Prune(ratio=0.25, score="l1", protect=("a", "b"))
    assert recipe.prune.active
    assert recipe.quantize.mode == "int16x8"
    assert recipe.evaluate.tflm_samples == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prune\n", "not a readable TOML file: .*"),
        ("[prunes]\n", r"unknown key prunes \(did you mean prune\?\); allowed: evaluate, prune,.*"),
        (
            "[prune]\nratios = 1\n",
            r"unknown key prune.ratios \(did you mean ratio\?\); .*",
        ),
        ("prune = 3\n", "prune = 3: write it as a table"),
        ("[prune]\nratio = 'x'\n", "prune.ratio = 'x': write a number"),
        ("[prune]\nratio = true\n", "prune.ratio = True: write a number"),
        ("[prune]\nprotect = 'x'\n", "prune.protect = 'x': write a list of a string"),
        ("[prune]\nprotect = [3]\n", r"prune.protect\[0\] = 3: write a string"),
        ("[prune]\nratio = 1.5\n", "prune.ratio = 1.5: use a fraction from 0 to 1"),
        ("[prune]\nratio = 0.1\nmacs = 0.5\n", "prune: ratio and macs are both set; keep one .*"),
        ("[quantize]\ncalibration_samples = 0\n", "quantize.calibration_samples = 0: use at .*"),
        ("[evaluate]\ntflm_samples = 0\n", "evaluate.tflm_samples = 0: use at least 1"),
    ],
)
def test_a_wrong_recipe_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{path}: {message}$"):
        Recipe.read(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file$"):
        Recipe.read(tmp_path / "gone.toml")


def test_options_replace_the_recipes_target() -> None:
    recipe = Recipe(prune=Prune(ratio=0.3, round_to=4), seed=1)
    merged = recipe.merged({"prune": {"macs": 0.5}, "quantize": {}}, seed=None)
    assert (merged.prune.ratio, merged.prune.macs, merged.prune.round_to) == (None, 0.5, 4)
    assert merged.seed == 1
    assert recipe.merged({}, seed=9).seed == 9


@pytest.mark.parametrize(
    ("text", "size"), [(12, 12), ("12", 12), ("48K", 49152), ("1.5 MiB", 1572864), ("2kb", 2048)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


def test_budget_limits(tmp_path: Path) -> None:
    budget = Budget.read(
        written(tmp_path, '[accuracy]\nmax_drop = 0.02\n[size]\ntflite = "48K"\narena = 100\n')
    )
    assert budget.accuracy.max_drop == 0.02
    assert [budget.size.limit(name) for name in ("tflite", "arena", "macs")] == [49152, 100, None]
    with pytest.raises(ConfigError, match=r"size.tflite: size '4 apples': write bytes, or"):
        Budget.read(written(tmp_path, '[size]\ntflite = "4 apples"\n'))
