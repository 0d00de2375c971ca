"""Bad input through the command line: one line that says what, where and how to fix; the exit
code; and an earlier run directory that stays as it was."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import boards
from edgecompress.cli import main
from edgecompress.report import Report
from edgecompress.strict import TOO_DEEP
from tests.damaged_npz import DAMAGED


@dataclass(frozen=True)
class Files:
    """A good model with its data, and a folder to put bad things in."""

    folder: Path
    model: Path
    data: Path

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def npz(self, name: str, **arrays: Any) -> Path:
        np.savez(self.folder / name, **arrays)
        return self.folder / name

    def rezipped(self, name: str, changed: Mapping[str, bytes | None]) -> Path:
        """The good model with members of its archive replaced, added or (None) dropped."""
        path = self.folder / name
        with zipfile.ZipFile(self.model) as old, zipfile.ZipFile(path, "w") as new:
            for member in old.namelist():
                if member not in changed:
                    new.writestr(member, old.read(member))
            for member, content in changed.items():
                if content is not None:
                    new.writestr(member, content, zipfile.ZIP_DEFLATED)
        return path

    def retyped(self, name: str, **entry: str) -> Path:
        """The good model whose layer `first` says in its config that it is something else."""
        with zipfile.ZipFile(self.model) as file:
            config: dict[str, Any] = json.loads(file.read("config.json"))
        next(e for e in config["config"]["layers"] if e["name"] == "first").update(entry)
        return self.rezipped(name, {"config.json": json.dumps(config).encode()})

    def flatbuffer(self) -> Path:
        """The good model, converted."""
        import edgecompress as ec

        path = self.folder / "good.tflite"
        if not path.exists():
            rows = np.load(self.data)["x"]
            path.write_bytes(ec.quantize(ec.load(self.model), calibration=rows).need_tflite("test"))
        return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("bad")
    keras.utils.set_random_seed(1)
    source = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(source)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(4, activation="softmax", name="classes")(x)
    model = keras.Model(source, outputs, name="good")
    model.save(folder / "good.keras")
    first = model.get_layer("first")
    kernel, bias = first.get_weights()
    kernel[0, 0, 0, 0] = np.nan
    first.set_weights([kernel, bias])
    model.save(folder / "nan.keras")
    free = keras.Input((None, 8, 1), name="image")
    open_ended = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(free))
    keras.Model(free, open_ended).save(folder / "free.keras")
    rng = np.random.default_rng(0)
    x_rows = rng.normal(size=(30, 8, 8, 1)).astype(np.float32)
    np.savez(folder / "good.npz", x=x_rows, y=rng.integers(0, 4, 30))
    return Files(folder, folder / "good.keras", folder / "good.npz")


X = np.random.default_rng(1).normal(size=(30, 8, 8, 1)).astype(np.float32)
Y = np.arange(30) % 4
AGAIN = "save it again with model.save"
COPY = "copy it again, or save it with np.savez(f, x=x, y=y)"


def model_file(make: Callable[[Files], Path]) -> Callable[[Files], list[str]]:
    return lambda files: ["compress", str(make(files)), "--data", str(files.data)]


def good(*options: str) -> Callable[[Files], list[str]]:
    return lambda files: ["compress", str(files.model), "--data", str(files.data), *options]


def npz(name: str, **arrays: Any) -> Callable[[Files], list[str]]:
    return lambda files: ["compress", str(files.model), "--data", str(files.npz(name, **arrays))]


def toml(option: str, name: str, text: str) -> Callable[[Files], list[str]]:
    return lambda files: [*good()(files), option, str(files.put(name, text))]


def words(*arguments: str) -> Callable[[Files], list[str]]:
    return lambda files: list(arguments)


def damaged(what: str) -> Callable[[Files], list[str]]:
    make, _ = DAMAGED[what]
    return lambda f: ["compress", str(f.model), "--data", str(f.put("damaged.npz", make()))]


def report(content: bytes) -> Callable[[Files], list[str]]:
    def make(files: Files) -> list[str]:
        (files.folder / "run").mkdir(exist_ok=True)
        return ["report", str(files.put("run/report.json", content).parent)]

    return make


CASES: dict[str, tuple[Callable[[Files], list[str]], int, str]] = {
    # case: (files -> arguments, exit code, the line after "edgecompress: "; F is the folder)
    "model file: missing": (
        lambda f: ["compress", "gone.keras", "--data", str(f.data)],
        2,
        "gone.keras: no such model file, nor a model of the zoo (kws, mlperf_ic, mlperf_kws)",
    ),
    "model file: empty": (
        model_file(lambda f: f.put("empty.keras", b"")),
        1,
        "F/empty.keras: the file is empty; save or download the model again",
    ),
    "model file: not a zip": (
        model_file(lambda f: f.put("text.keras", "hello")),
        1,
        f"F/text.keras: not a .keras file, or damaged (File is not a zip file); {AGAIN}",
    ),
    "model file: truncated": (
        model_file(lambda f: f.put("cut.keras", f.model.read_bytes()[:4000])),
        1,
        f"F/cut.keras: not a .keras file, or damaged (File is not a zip file); {AGAIN}",
    ),
    "model file: unknown kind": (
        model_file(lambda f: f.put("model.onnx", b"x")),
        1,
        "F/model.onnx: unknown kind of model file; give a .keras, .h5, .hdf5, .tflite file or a"
        " SavedModel",
    ),
    "model file: an h5 that is none": (
        model_file(lambda f: f.put("fake.h5", b"HDF?" * 50)),
        1,
        "F/fake.h5: not an HDF5 file (wrong first bytes); save or download it again",
    ),
    "model file: a folder that is no SavedModel": (
        model_file(lambda f: f.folder),
        1,
        "F: a folder without saved_model.pb, so no SavedModel; give the folder that"
        " model.save(folder) of Keras 2 wrote",
    ),
    "model file: no config.json": (
        model_file(lambda f: f.rezipped("noconfig.keras", {"config.json": None})),
        1,
        f"F/noconfig.keras: no config.json in the archive; {AGAIN}",
    ),
    "model file: config.json is no JSON": (
        model_file(lambda f: f.rezipped("nojson.keras", {"config.json": b"[1,"})),
        1,
        "F/nojson.keras: config.json is no JSON (Expecting value: line 1 column 4 (char 3));"
        " save the model again",
    ),
    "model file: path traversal": (
        model_file(lambda f: f.rezipped("travel.keras", {"../evil": b"x"})),
        1,
        "F/travel.keras: unexpected member '../evil' in the archive (layers with files of their"
        f" own are not supported); {AGAIN}",
    ),
    "model file: zip bomb": (
        model_file(lambda f: f.rezipped("bomb.keras", {"config.json": b" " * (40 << 20)})),
        1,
        f"F/bomb.keras: config.json would unpack to more than 200 times its size; {AGAIN}",
    ),
    "model file: Lambda layer": (
        model_file(lambda f: f.retyped("lambda.keras", class_name="Lambda")),
        1,
        "F/lambda.keras: layer 'first': a Lambda holds Python code, which is never run; replace it"
        " by built-in layers and save again",
    ),
    "model file: custom class": (
        model_file(lambda f: f.retyped("own.keras", class_name="Mine", module="mine")),
        1,
        "F/own.keras: layer 'first': 'Mine' is no built-in Keras class, and no other is loaded;"
        " replace it by built-in layers and save again",
    ),
    "model file: NaN weights": (
        model_file(lambda f: f.folder / "nan.keras"),
        1,
        "F/nan.keras: layer 'first', variable 'kernel': 1 of 72 values are NaN or infinite; train"
        " again, or take an earlier checkpoint",
    ),
    "model file: input without a static shape": (
        model_file(lambda f: f.folder / "free.keras"),
        1,
        "F/free.keras: input 'image' has the shape (None, None, 8, 1): only the first, the batch,"
        " may be None; rebuild the model with keras.Input(shape) of whole numbers, load_weights,"
        " and save it",
    ),
    "model file: tflite without magic": (
        model_file(lambda f: f.put("fake.tflite", b"\0" * 64)),
        1,
        "F/fake.tflite: not a TensorFlow Lite file (no 'TFL3' at byte 4); convert or download it"
        " again",
    ),
    "model file: tflite that points nowhere": (
        model_file(lambda f: f.put("bad.tflite", b"\xff\0\0\0TFL3" + b"\0" * 9)),
        1,
        "F/bad.tflite: .tflite: the root points to a wrong place (offset 255); the file is damaged,"
        " convert or copy it again",
    ),
    "data: none": (
        lambda f: ["compress", str(f.model)],
        2,
        "F/good.keras: no data to calibrate and judge it on; give --data my.npz (x, y), or compress"
        " it without data: --recipe data-free",
    ),
    "data: missing file": (
        lambda f: ["compress", str(f.model), "--data", "gone.npz"],
        2,
        "gone.npz: no such data file; give an .npz with x and y",
    ),
    "data: not an npz": (
        lambda f: ["compress", str(f.model), "--data", str(f.put("junk.npz", b"junk"))],
        2,
        f"F/junk.npz: not a readable .npz (File is not a zip file); {COPY}",
    ),
    "data: damaged": (
        damaged("a block type that is none"),
        2,
        "F/damaged.npz: not a readable .npz (Error -3 while decompressing data: invalid block type"
        f"); {COPY}",
    ),
    "data: encrypted": (
        damaged("encrypted"),
        2,
        "F/damaged.npz: not a readable .npz (File 'x.npy' is encrypted, password required for"
        f" extraction); {COPY}",
    ),
    "data: compressed in an unknown way": (
        damaged("compressed in an unknown way"),
        2,
        f"F/damaged.npz: not a readable .npz (That compression method is not supported); {COPY}",
    ),
    "data: a header that claims 36 TiB": (
        damaged("36 TiB"),
        2,
        "F/damaged.npz: not a readable .npz (x.npy claims 40,000,000,000,000 bytes, 64 are there);"
        f" {COPY}",
    ),
    "data: one label for all": (
        npz("scalar.npz", x=X, y=3),
        2,
        "F/scalar.npz: y is int64 (); give a whole number per row of x, its class, or float"
        " targets",
    ),
    "data: labels that are words": (
        npz("words.npz", x=X, y=["cat"] * 30),
        2,
        "F/words.npz: y is <U3 (30,); give a whole number per row of x, its class, or float"
        " targets",
    ),
    "data: targets with NaN": (
        npz("nany.npz", x=X, y=np.full((30, 4), np.nan)),
        2,
        "F/nany.npz: y holds NaN or infinite values; clean the data",
    ),
    "data: one-hot labels of more classes than the model has": (
        npz("hot.npz", x=X, y=np.eye(6)[Y + 2]),
        2,
        "test: label 5 is out of range; the model has 4 classes (0..3)",
    ),
    "data: targets of the calibration rows alone": (
        npz("alone.npz", x=X, x_calibration=X, y_calibration=Y),
        2,
        "F/alone.npz: y_calibration without y; save both, or neither",
    ),
    "data: pickled objects": (
        npz("object.npz", x=np.array([{}, {}], dtype=object)),
        2,
        "F/object.npz: not a readable .npz (x.npy holds Python objects, which are never unpickled);"
        f" {COPY}",
    ),
    "data: no x": (
        npz("nox.npz", z=X),
        2,
        "F/nox.npz: no array named x (found: z); save np.savez(f, x=x, y=y), or x_calibration=x"
        " where no targets are known",
    ),
    "data: NaN": (
        npz("nan.npz", x=X * np.nan),
        2,
        "F/nan.npz: x holds NaN or infinite values; clean the data",
    ),
    "data: other shape than the model": (
        npz("shape.npz", x=X[:, :4], y=Y),
        2,
        "data shape, calibration: rows are (4, 8, 1) but good takes (8, 8, 1); reshape the array",
    ),
    "data: label out of range": (
        npz("label.npz", x=X, y=Y + 9),
        2,
        "test: label 12 is out of range; the model has 4 classes (0..3)",
    ),
    "data: constant": (
        npz("flat.npz", x=np.ones_like(X), y=Y),
        2,
        "calibration: every value is 1, which gives no range; pass real rows",
    ),
    "data: labels that the metric cannot use": (
        good("--metric", "auc"),
        2,
        "test: auc needs labels 0 and 1, and both of them",
    ),
    "recipe: unknown key": (
        toml("--recipe", "r.toml", "[prun]\n"),
        2,
        "F/r.toml: unknown key prun (did you mean prune?); allowed: cluster, evaluate,"
        " finetune, prune, qat, quantize, seed, sparsify, train",
    ),
    "recipe: words in another order": (
        good("--recipe", "qat-prune50"),
        2,
        "recipe 'qat-prune50': its stages run in another order; write 'prune50-qat'",
    ),
    "recipe: an unknown word": (
        good("--recipe", "prune50-finetun-qat"),
        2,
        "recipe 'prune50-finetun-qat': 'finetun' is no stage; did you mean finetune? known, in this"
        " order: prune50, finetune, distil, sparse80, sparse2of4, pairs80, quads75, cluster16, qat,"
        " int16x8, mixed60",
    ),
    "recipe: nested without end": (
        toml("--recipe", "n.toml", f"seed = {'[' * 9999}{']' * 9999}"),
        2,
        f"F/n.toml: {TOO_DEEP}",
    ),
    "recipe: negative seed": (
        toml("--recipe", "s.toml", "seed = -1\n"),
        2,
        "F/s.toml: seed = -1: use a whole number from 0",
    ),
    "option: negative seed": (
        good("--seed", "-1"),
        2,
        "seed = -1: use a whole number from 0",
    ),
    "recipe: unknown layer": (
        toml("--recipe", "p.toml", "[prune]\nratio = 0.2\nprotect = ['frist']\n"),
        2,
        "protect: no layer 'frist' in the model; use first",
    ),
    "recipe: ratio out of range": (
        good("--ratio", "2"),
        2,
        "prune.ratio = 2.0: use a fraction from 0 to 1",
    ),
    "recipe: two targets": (
        good("--ratio", "0.1", "--macs", "0.5"),
        2,
        "prune: ratio and macs are both set; keep one target",
    ),
    "recipe: unreachable target": (
        good("--macs", "0.0001"),
        2,
        "prune: macs=0.0001 cannot be reached: at best 1156 of 41504 remain (0.0279) with these"
        " min_channels, floor, round_to and protected layers",
    ),
    "recipe: impossible types": (
        toml("--recipe", "q.toml", "[quantize]\nmode = 'int16x8'\ninput_type = 'int8'\n"),
        2,
        "F/q.toml: quantize.input_type = int8: it does not go with mode int16x8; use int16 or"
        " float32, or leave it out",
    ),
    "stage: a tflite cannot be pruned": (
        lambda f: ["compress", str(f.flatbuffer()), "--data", str(f.data), "--ratio", "0.5"],
        1,
        "prune: good is a .tflite, which cannot be pruned or trained; start from the Keras model,"
        " or leave the stages out",
    ),
    "budget: unknown key": (
        toml("--budget", "b.toml", "[size]\nflash = 1\n"),
        2,
        "F/b.toml: unknown key size.flash; allowed: aot_arena, arena, macs, params, tflite",
    ),
    "report: none there": (
        lambda f: ["report", str(f.folder / "none")],
        1,
        "F/none/report.json: no such report; run edgecompress compress first",
    ),
    "report: not text": (
        report(b"\xff\xfe"),
        1,
        "F/run/report.json: cannot be read ('utf-8' codec can't decode byte 0xff in position 0:"
        " invalid start byte); run compress again",
    ),
    "report: nested without end": (
        report(b"[" * 99999),
        1,
        f"F/run/report.json: {TOO_DEEP}; run compress again",
    ),
    "report: a figure that is no number": (
        report(b'{"size": NaN}'),
        1,
        "F/run/report.json: not JSON (NaN is no finite number); run compress again",
    ),
    "report: of no schema": (
        report(b'{"name": "m"}'),
        1,
        "F/run/report.json: missing key sha256",
    ),
    "board: unknown": (
        words("flash", "kws", "--board", "nano34"),
        2,
        f"board 'nano34': no such board; there is {', '.join(boards.names())}",
    ),
    "board: model not compressed": (
        words("build", "kwss", "--board", "host"),
        1,
        "kwss: no build/kwss/model.tflite yet; run `edgecompress compress kwss` first, or give a"
        " .tflite (the zoo has kws, mlperf_ic, mlperf_kws)",
    ),
    "board: no data to judge on": (
        lambda f: ["measure", str(f.flatbuffer()), "--board", "host", "--samples", "3"],
        2,
        "F/good.tflite: no data to judge it on; give --data my.npz (x, y)",
    ),
    "zoo: unknown model": (
        words("pull", "kwss"),
        2,
        "model 'kwss' is unknown; did you mean kws? known: kws, mlperf_ic, mlperf_kws; add a folder"
        " models/kwss/ with a model.py, or name a model file",
    ),
    "inspect: no such file": (
        words("inspect", "gone.h5"),
        1,
        "gone.h5: no such file; check the path",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_the_exit_code(
    name: str,
    files: Files,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    make, code, line = CASES[name]
    arguments = make(files)
    capfd.readouterr()  # what TensorFlow says while the files are made
    monkeypatch.chdir(tmp_path)
    earlier = tmp_path / "build" / "good" / "report.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert out == ""
    errors = [text for text in err.splitlines() if not text.endswith(" ...")]
    assert [text.replace(str(files.folder), "F") for text in errors] == [f"edgecompress: {line}"]
    assert earlier.read_text() == "earlier"
    assert list(earlier.parent.iterdir()) == [earlier]


def test_a_data_folder_that_is_none(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EC_DATA_DIR", str(tmp_path / "gone"))
    monkeypatch.chdir(tmp_path)
    assert main(["compress", "mlperf_ic"]) == 2
    assert capfd.readouterr().err == (
        f"edgecompress: EC_DATA_DIR={tmp_path / 'gone'} is no folder; correct it or unset it\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["squash", "m"], "invalid choice: 'squash'"),
        (["compress"], "the following arguments are required: MODEL"),
        (["compress", "m", "--metric", "f1"], "argument --metric: invalid choice: 'f1'"),
        (["compress", "m", "--score", "best"], "argument --score: invalid choice: 'best'"),
        (["compress", "m", "--mode", "int7"], "argument --mode: invalid choice: 'int7'"),
        (["compress", "m", "--ratio", "half"], "argument --ratio: invalid float value: 'half'"),
        (["flash", "m"], "the following arguments are required: --board"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_over_budget_lists_every_limit_and_still_writes(
    files: Files, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    budget = files.put("tight.toml", "[size]\ntflite = '1K'\narena = 1\nparams = '1M'\n")
    out = tmp_path / "run"
    assert main(good("--budget", str(budget), "--out", str(out))(files)) == 3
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("edgecompress: good: over budget: size.arena is ")
    assert ", must be <= 1: over by " in last
    assert "; size.tflite is " in last
    assert ", must be <= 1,024: over by " in last
    assert last.count(" (largest: ") == 2
    kept = Report.read(out).budget[1]
    assert (kept.limit, kept.ok) == ("size.params", True)


def test_a_place_that_cannot_be_written(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(good("--out", str(files.data / "run"))(files)) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"edgecompress: {files.data / 'run'}: Not a directory"
