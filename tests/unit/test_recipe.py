"""Recipe and the strict reader behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.errors import ConfigError
from edgecompress.recipe import Prune, Recipe, named


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


def test_without_repair_no_error_is_predicted() -> None:
    recipe = Recipe.read(named("data-free"))
    assert recipe.prune.scope == "predicted"
    plain = recipe.merged({"prune": {"repair": "none"}}, seed=None).prune
    assert (plain.repair, plain.scope) == ("none", "global")


def test_only_integers_need_samples() -> None:
    changes = {"quantize": {"mode": "float16"}}
    assert Recipe().needs_samples
    assert not Recipe().merged(changes, seed=None).needs_samples
    assert not Recipe.read(named("data-free")).needs_samples
    assert Recipe.read(named("few-samples")).needs_samples


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
        ("[prune]\nram = 1.5\n", "prune.ram = 1.5: use a fraction from 0 to 1, or a whole .*"),
        ("[prune]\nsamples = 0\n", "prune.samples = 0: use at least 1"),
        ("[prune]\nratio = 0.1\nmacs = 0.5\n", "prune: ratio and macs are both set; keep one .*"),
        ("[quantize]\ninput_range = [0, 1]\n", "quantize.input_range: for .*data-free. alone"),
        (
            '[quantize]\ncalibration = "data-free"\ninput_range = [1, 0]\n',
            r"quantize.input_range = \[1.*, 0.*\]: use two numbers, the least first",
        ),
        (
            '[quantize]\nmode = "float16"\ncalibration = "data-free"\nweight_bits = 4\n',
            "quantize: calibration, weight_bits are for mode int8, not float16; leave them out,.*",
        ),
        ("[quantize]\ninput_range = 255\n", "quantize.input_range = 255: write a list of a number"),
        ("[quantize]\ncalibration_samples = 0\n", "quantize.calibration_samples = 0: use at .*"),
        ("[evaluate]\ntflm_samples = 0\n", "evaluate.tflm_samples = 0: use at least 1"),
        ("seed = -1\n", "seed = -1: use a whole number from 0"),
        ("seed = true\n", "seed = True: write a whole number"),
        (f"seed = {2**63}\n", "seed = 9223372036854775808: write a whole number"),
        ("[prune]\nratio = nan\n", "prune.ratio = nan: write a number"),
        ("[prune]\nmacs = -inf\n", "prune.macs = -inf: write a number"),
        (f"[prune]\nmacs = {'9' * 400}\n", r"prune.macs = 9+\.\.\.9+: write a number"),
        (f"[prune]\nmacs = {'9' * 5000}\n", "not a readable TOML file: .*"),
        (f"[prune]\nscore = '{'x' * 500}'\n", r"prune.score = 'x+\.\.\.x+': write one of l1, .*"),
        (f"seed = {'[' * 9999}{']' * 9999}\n", "tables and lists lie deeper than 50 levels, .*"),
        (f"seed{'.a' * 60} = 1\n", "tables and lists lie deeper than 50 levels, .*"),
        ("seed.a.b.c.d.e = 1\n", r"seed = {'a': {.*}}: write a whole number"),
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
    assert recipe.merged({}, seed=0).seed == 0
    with pytest.raises(ConfigError, match="^seed = -1: use a whole number from 0$"):
        recipe.merged({}, seed=-1)
    with pytest.raises(ConfigError, match="^quantize.calibration_samples = 0: use at least 1$"):
        recipe.merged({"quantize": {"calibration_samples": 0}}, seed=None)


def test_a_recipe_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=f"^{path}: not a readable TOML file: 'utf-8' codec"):
        Recipe.read(path)
    with pytest.raises(ConfigError, match=f"^{tmp_path}: not a readable TOML file: "):
        Recipe.read(tmp_path)
