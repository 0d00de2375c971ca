"""Recipe and the strict reader behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecompress.errors import ConfigError
from edgecompress.recipe import (
    SPELLED,
    Cluster,
    Finetune,
    Prune,
    Qat,
    Quantize,
    Recipe,
    Sparsify,
    Train,
    find,
    named,
)
from edgecompress.recipe.grammar import DISTILLED, WORDS


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
        ("[prunes]\n", r"unknown key prunes \(did you mean prune\?\); allowed: cluster, .*"),
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
        ("[quantize]\nweight_flash = 1.5\n", "quantize.weight_flash = 1.5: use a fraction .*"),
        (
            "[quantize]\nweight_flash = 0.5\nweight_bits = 4\n",
            "quantize: weight_flash chooses the bits of each layer; leave weight_bits out",
        ),
        (
            '[quantize]\nweight_flash = 0.5\ncalibration = "data-free"\n',
            "quantize.weight_flash: what bits do is measured on rows; use calibration = .*",
        ),
        ("[qat]\n[quantize]\nweight_bits = 4\n", "quantize.weight_bits: qat trains for .*"),
        ("[qat]\n[quantize]\nper_channel = false\n", "quantize.per_channel: qat trains for .*"),
        ("[qat]\n[quantize]\nweight_flash = 0.5\n", "quantize.weight_flash: qat trains for .*"),
        (
            '[sparsify]\n[quantize]\nrounding = "squant"\n',
            'quantize.rounding = "squant": it would change the zeros and distinct values .*',
        ),
        (
            "[cluster]\n[quantize]\nequalise = true\n",
            "quantize.equalise: cluster leaves distinct values on grids of 8 bits, .*",
        ),
        (
            "[cluster]\n[quantize]\nweight_flash = 0.5\n",
            "quantize.weight_flash: cluster leaves distinct values on grids of 8 bits, .*",
        ),
        ('[sparsify]\n[quantize]\nmode = "float16"\n', 'quantize.mode = "float16": its weights .*'),
        ('[cluster]\n[quantize]\nmode = "dynamic"\n', 'quantize.mode = "dynamic": its weights .*'),
        (
            '[quantize]\nmode = "int16x8"\ninput_type = "int8"\n',
            "quantize.input_type = int8: it does not go with mode int16x8; use int16 or float32,.*",
        ),
        ("[prune]\nrounds = 3\n", "prune.rounds: there is no target to prune to; .*"),
        ("[train]\nepochs = 0\n", "train.epochs = 0: use at least 1"),
        ("[train]\nlearning_rate = 0\n", "train.learning_rate = 0.0: use a number above 0"),
        ("[train]\nteacher = 2\n", "train.teacher = 2.0: use a share from 0 to 1"),
        ("[train]\nwarm_up = 1\n", "train.warm_up = 1.0: use 0 up to below 1"),
        ("[finetune]\nepochs = 0\n", "finetune.epochs = 0: use at least 1"),
        ("[sparsify]\nsparsity = 1\n", "sparsify.sparsity = 1.0: use a share between 0 and 1"),
        (
            '[sparsify]\nsparsity = 0.9\npattern = "2:4"\n',
            "sparsify.sparsity = 0.9: pattern 2:4 makes 0.5 zero; leave it out",
        ),
        ("[cluster]\nclusters = 1\n", "cluster.clusters = 1: use 2 to 256"),
        ("[qat]\nweight_bits = 1\n", "qat.weight_bits = 1: use 2 to 8"),
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


def test_epochs_asked_for_are_those_of_every_stage() -> None:
    recipe = Recipe(
        finetune=Finetune(epochs=3, learning_rate=0.1), qat=Qat(), train=Train(epochs=5)
    )
    merged = recipe.merged({"train": {"epochs": 2}}, seed=None)
    for stage in (merged.finetune, merged.qat):
        assert stage is not None and stage.training(merged.train).epochs == 2
    assert merged.finetune == Finetune(learning_rate=0.1) and merged.sparsify is None
    assert recipe.merged({"train": {}}, seed=None) == recipe
    with pytest.raises(ConfigError, match="^train.epochs: nothing in the recipe trains; add a"):
        Recipe().merged({"train": {"epochs": 2}}, seed=None)


def test_a_recipe_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=f"^{path}: not a readable TOML file: 'utf-8' codec"):
        Recipe.read(path)
    with pytest.raises(ConfigError, match=f"^{tmp_path}: not a readable TOML file: "):
        Recipe.read(tmp_path)


BASE = Recipe(
    prune=Prune(ratio=0.3, round_to=8, score="l1"),
    finetune=Finetune(epochs=3),
    quantize=Quantize(input_type="uint8"),
    train=Train(epochs=5),
    seed=4,
)
"""As a model's own recipe.toml."""


def test_a_name_spells_stages_on_top_of_a_recipe() -> None:
    assert find("prune50-qat", base=BASE) == replace(
        BASE,
        prune=replace(BASE.prune, ratio=None, macs=0.5),
        finetune=None,
        qat=Qat(),
    )
    assert find("distil", base=BASE) == replace(
        BASE, finetune=Finetune(), train=replace(BASE.train, teacher=DISTILLED)
    )
    assert find("int16x8", base=BASE).quantize == Quantize(mode="int16x8")
    kept = find("qat4", base=BASE)
    assert (kept.prune, kept.finetune, kept.qat) == (BASE.prune, None, Qat(weight_bits=4))


FINE: Any = {"rounding": "compensated", "correct_bias": True}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("finetune", {"finetune": Finetune()}),
        ("sparse80", {"sparsify": Sparsify(sparsity=0.8)}),
        ("sparse2of4", {"sparsify": Sparsify(pattern="2:4")}),
        ("pairs75", {"sparsify": Sparsify(sparsity=0.75, pattern="pairs")}),
        ("quads90", {"sparsify": Sparsify(sparsity=0.9, pattern="quads")}),
        ("cluster16-qat", {"cluster": Cluster(clusters=16), "qat": Qat()}),
        ("int16x8", {"quantize": Quantize(mode="int16x8")}),
        ("mixed", {"quantize": Quantize(weight_flash=0.6, **FINE)}),
        ("mixed75", {"quantize": Quantize(weight_flash=0.75, **FINE)}),
        (
            "sparse50-mixed",
            {"sparsify": Sparsify(sparsity=0.5), "quantize": Quantize(weight_flash=0.6)},
        ),
        ("prune25x8", {"prune": Prune(macs=0.75, rounds=8, round_to=4, min_channels=4)}),
    ],
)
def test_every_word_is_a_stage(name: str, changes: dict[str, Any]) -> None:
    assert find(name) == replace(SPELLED, **changes)
    assert find(name).trains == (not {"quantize"} >= changes.keys())


def test_the_examples_of_the_words_are_words() -> None:
    for word in WORDS:
        assert find(word.example) != SPELLED


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qat-prune50", "its stages run in another order; write 'prune50-qat'$"),
        ("qat-finetune-qat4", "qat and qat4 are one stage; keep one"),
        ("finetune-distil", "finetune and distil are one stage; keep one"),
        ("prune50-finetun", "'finetun' is no stage; did you mean finetune\\? known, in this order"),
        ("prunes50", "'prunes50' is no stage; did you mean prune50\\?"),
        ("qat-", "'' is no stage; known"),
        ("prune0", "0 percent: use 1 to 99"),
        ("sparse3of7", "no such pattern; use sparse1of2, sparse1of4, sparse2of4"),
        ("qat9", "weight_bits = 9: use 2 to 8"),
        ("cluster999", "clusters = 999: use 2 to 256"),
        ("prune50x0", "prune.rounds = 0: use at least 1"),
        ("qat-mixed", "quantize.weight_flash: qat trains for int8"),
        ("qat-int16x8", "quantize.mode: qat trains for int8"),
    ],
)
def test_a_name_that_spells_no_recipe(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^recipe '{name}': {message}"):
        find(name)


def test_files_go_before_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("qat").qat == Qat()
    (tmp_path / "qat").write_text("seed = 9\n")
    assert find("qat") == Recipe(seed=9)
    assert find("data-free") == Recipe.read(named("data-free"))
    with pytest.raises(ConfigError, match="no such file, nor a recipe of ours .*; stages are"):
        find("mine")
    with pytest.raises(ConfigError, match=r"prune50\.toml: no such file"):
        find("prune50.toml")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        BASE,
        find("prune50x4-distil-pairs80-cluster16-qat4"),
        find("mixed60"),
        find("data-free"),
        Recipe(train=Train(features=("a b", 'c"\\d'), learning_rate=1e-5), seed=2),
    ],
)
def test_a_printed_recipe_reads_back_the_same(recipe: Recipe, tmp_path: Path) -> None:
    path = written(tmp_path, recipe.to_toml())
    assert Recipe.read(path) == recipe
    assert "# not set: " in path.read_text()
