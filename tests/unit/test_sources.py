"""Data of the user's own: folders of images and sounds, functions in Python files."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress.data import Batches, Dataset
from edgecompress.errors import ConfigError
from edgecompress.sources import folders, read_data

RATE = 4000


def image(file: Path, pixels: np.ndarray) -> None:
    import tensorflow as tf

    encode = tf.io.encode_jpeg if file.suffix in (".jpg", ".jpeg") else tf.io.encode_png
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(pixels.astype(np.uint8)).numpy())


def bmp(file: Path, pixels: np.ndarray) -> None:
    """24 bits a pixel, blue first, the last row first."""
    height, width, _ = pixels.shape
    body = b"".join(
        row[:, ::-1].astype(np.uint8).tobytes() + bytes(-3 * width % 4) for row in pixels[::-1]
    )
    fields = (54 + len(body), 0, 54, 40, width, height, 1 | 24 << 16, 0, len(body), 0, 0, 0, 0)
    file.write_bytes(b"BM" + np.array(fields, "<u4").tobytes() + body)


def sound(file: Path, samples: np.ndarray, *, width: int = 2, rate: int = RATE) -> None:
    """`samples` (N, channels) from -1 to 1."""
    whole = np.round(samples * (2.0 ** (8 * width - 1) - 1)).astype(np.int64)
    parts = (whole + 128).astype(np.uint8) if width == 1 else whole.astype("<i8")
    data = parts.view(np.uint8).reshape(-1, 1 if width == 1 else 8)[:, :width].tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(data)


def pictures(folder: Path, classes: dict[str, int], *, start: int = 0) -> Path:
    """`classes[name]` grey pictures of 4 x 4 in each class folder, all different."""
    shade = start
    for name, count in classes.items():
        for number in range(count):
            image(folder / name / f"{number:03}.png", np.full((4, 4, 1), shade))
            shade += 1
    return folder


def shades(x: np.ndarray) -> list[int]:
    assert (x == x[:, :1, :1]).all()
    return [int(value) for value in x[:, 0, 0, 0]]


def learnt(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """An epoch of the rows to train on."""
    rows: Batches = data.to_train("test").rows
    epoch = list(rows.epoch(4, np.random.default_rng(0)))
    return np.concatenate([x for x, _ in epoch]), np.concatenate([y for _, y in epoch])


def test_pictures_of_every_format_become_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(8) * 10, np.arange(6) * 20)[..., None] + [0, 20, 40]
    exact = rng.integers(0, 256, (8, 6, 3))
    image(tmp_path / "pets/a/1.png", exact)
    bmp(tmp_path / "pets/a/2.bmp", exact)
    image(tmp_path / "pets/a/3.JPG", smooth)
    image(tmp_path / "pets/b/4.png", exact[..., :1])
    image(tmp_path / "pets/b/5.png", np.concatenate([exact, exact[..., :1]], axis=-1))
    (tmp_path / "pets/b/Thumbs.db").write_bytes(b"not an image")
    (tmp_path / "pets/.cache").write_bytes(b"nor this")
    read = folders.images((8, 6, 3), None)
    for name in ("a/1.png", "a/2.bmp", "b/5.png"):
        assert (read(tmp_path / "pets" / name) == exact).all()
    assert (read(tmp_path / "pets/b/4.png") == exact[..., :1].repeat(3, axis=-1)).all()
    assert np.abs(read(tmp_path / "pets/a/3.JPG") - smooth).max() < 12
    data = read_data(str(tmp_path / "pets"), shape=(8, 6, 3))
    assert (data.name, data.metric, data.labels) == ("pets", "top1", ("a", "b"))
    assert data.test.x.shape == (4, 8, 6, 3)
    assert data.test.x.dtype == np.float32
    assert len(data.pool) == 1


def test_pictures_are_fitted_to_the_model(tmp_path: Path) -> None:
    """Shrinking takes the mean of what it leaves out; grey is made of colours, and the reverse."""
    noise = np.random.default_rng(0).integers(0, 2, (32, 32, 1)) * 200
    image(tmp_path / "a.png", noise)
    small = folders.images((8, 8, 1), None)(tmp_path / "a.png")
    assert small.shape == (8, 8, 1)
    assert small.mean() == pytest.approx(noise.mean(), abs=4)
    assert small.std() < 30  # of 100; two pixels each way, as bilinear alone takes, leave 50
    image(tmp_path / "b.png", np.full((2, 2, 3), [255, 0, 0]))
    assert np.abs(folders.images((2, 2, 1), None)(tmp_path / "b.png") - 76.2).max() < 1
    opaque = folders.images((2, 2, 4), None)(tmp_path / "b.png")
    assert (opaque == [255, 0, 0, 255]).all()


def test_an_undivided_folder_is_divided(tmp_path: Path) -> None:
    pictures(tmp_path, {"cat": 30, "ant": 10})
    data = read_data(str(tmp_path), shape=(4, 4, 1), seed=1, training=True)
    training = data.to_train("test")
    x, y = learnt(data)
    assert data.labels == ("ant", "cat")
    assert (len(data.test), len(training.validation), len(x)) == (8, 4, 28)
    seen = [shades(part) for part in (data.test.x, training.validation.x, x)]
    assert sorted(sum(seen, [])) == list(range(40))
    assert set(shades(data.pool)) <= set(seen[2])
    assert ((np.array(seen[2]) < 30) == y).all()
    assert data.test.y is not None
    assert ((np.array(seen[0]) < 30) == data.test.y).all()
    assert data.test.source == f"a fifth of {tmp_path.name}, drawn with seed 1"
    untrained = read_data(str(tmp_path), shape=(4, 4, 1), seed=1)
    assert (len(untrained.pool), len(untrained.test), untrained.training) == (8, 32, None)


def test_a_divided_folder_stays_so(tmp_path: Path) -> None:
    pictures(tmp_path / "train", {"a": 20, "b": 20})
    pictures(tmp_path / "test", {"a": 3, "b": 4}, start=38)
    (tmp_path / "labels.txt").write_text("b\na\n\n")
    data = read_data(str(tmp_path), shape=(4, 4, 1), training=True)
    assert data.labels == ("b", "a")
    assert data.test.y is not None
    assert data.test.y.tolist() == [0] * 4 + [1] * 3
    assert shades(data.test.x) == [41, 42, 43, 44, 38, 39, 40]
    known = "; 2 of its rows are among the training rows too"
    training = data.to_train("test")
    assert (len(training.rows), len(training.validation)) == (36, 4)
    held = set(shades(training.validation.x)) & {38, 39}
    assert data.test.source == tmp_path.name + (known if not held else known.replace("2", "1"))
    pictures(tmp_path / "validation", {"a": 2, "b": 1}, start=100)
    data = read_data(str(tmp_path), shape=(4, 4, 1), training=True)
    training = data.to_train("test")
    assert (len(training.rows), shades(training.validation.x)) == (40, [102, 100, 101])
    assert set(shades(data.pool)) == set(range(40))


def test_rows_that_do_not_fit_into_memory_are_read_in_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_data(str(pictures(tmp_path, {"a": 9, "b": 9})), shape=(4, 4, 1), training=True)
    kept = learnt(data)
    monkeypatch.setattr(folders, "MEMORY", len(kept[0]) * 4 * 4 * 4 - 1)
    rows = data.to_train("test").rows
    assert isinstance(rows, folders.Files)
    assert all((a == b).all() for a, b in zip(learnt(data), kept, strict=True))
    rows.files[0].unlink()
    with pytest.raises(ConfigError, match=f"^{rows.files[0]}: not a readable image"):
        learnt(data)


@pytest.mark.parametrize(("width", "error"), [(1, 2**-7), (2, 2**-15), (3, 2**-22), (4, 2**-22)])
@pytest.mark.parametrize("channels", [1, 2])
def test_sounds_become_waveforms(tmp_path: Path, width: int, error: float, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (50, channels))
    sound(tmp_path / "s.wav", samples, width=width)
    for shape, length in (((50,), 50), ((30, 1), 30), ((64,), 64)):
        found = folders.waveforms(tmp_path / "s.wav", shape, None)(tmp_path / "s.wav")
        assert (found.shape, found.dtype) == (shape, np.float32)
        wanted = np.zeros(64)
        wanted[:50] = samples.mean(axis=1)
        assert np.abs(found.reshape(-1) - wanted[:length]).max() < 2 * error


HOOKS = """
import numpy as np
from . import helper

def energy(waveform, rate):
    assert rate == 4000
    return np.full((helper.ROWS, 3, 1), np.abs(waveform).max())

def signs(pixels):
    return pixels / 127.5 - 1

def wrong(pixels):
    return pixels[..., 0]

def mirrored(x, y, rng):
    return np.where(rng.random((len(x), 1, 1, 1)) < 0.5, x[:, :, ::-1], x)

def cut(x, y, rng):
    return x[:, 1:]

def spoil(x, y, rng):
    x[:] = 7
    return x

def broken(x, y, rng):
    return x / {}["scale"]
"""


def hooks(folder: Path) -> str:
    (folder / "helper.py").write_text("ROWS = 2\n")
    (folder / "hooks.py").write_text(HOOKS)
    return str(folder / "hooks.py")


def test_features_make_the_rows_of_a_model(tmp_path: Path) -> None:
    file = hooks(tmp_path)
    for number, name in enumerate("aabb"):
        sound(tmp_path / "said" / name / f"{number}.wav", np.full((9, 1), number / 4))
    said = read_data(str(tmp_path / "said"), shape=(2, 3, 1), features=f"{file}:energy")
    found = np.concatenate([said.pool, said.test.x])
    assert found.shape == (4, 2, 3, 1)
    assert np.allclose(sorted(found[:, 0, 0, 0]), np.arange(4) / 4, atol=1e-3)
    where = str(pictures(tmp_path / "seen", {"a": 2, "b": 2}, start=50))
    seen = read_data(where, shape=(2, 2, 3), features=f"{file}:signs")
    assert seen.test.x.shape == (3, 2, 2, 3)
    assert np.abs(np.concatenate([seen.test.x, seen.pool]) + 0.6).max() < 0.02
    with pytest.raises(ConfigError, match=r"000.png: --features .*:wrong made float32 \(2, 2\), "):
        read_data(where, shape=(2, 2, 3), features=f"{file}:wrong")


def test_augmentation_changes_rows_to_train_on(tmp_path: Path) -> None:
    x = np.arange(60 * 12, dtype=np.float32).reshape(60, 2, 6, 1)
    np.savez(tmp_path / "my.npz", x=x)
    file = hooks(tmp_path)

    def read(name: str) -> Any:
        where = str(tmp_path / "my.npz")
        data = read_data(where, shape=(2, 6, 1), training=True, augment=f"{file}:{name}")
        return data.to_train("test")

    training = read("mirrored")
    batch = x[:32]
    once, again = (training.augment(batch, None, np.random.default_rng(s)) for s in (0, 0))
    assert (once == again).all()
    assert (once.sum(axis=2) == batch.sum(axis=2)).all()
    assert 5 < (once != batch).any(axis=(1, 2, 3)).sum() < 27
    assert (training.validation.x == read("cut").validation.x).all()
    before = batch.copy()
    assert (read("spoil").augment(batch, None, np.random.default_rng(0)) == 7).all()
    assert (batch == before).all()
    with pytest.raises(ConfigError, match=r"cut: it made float32 \(32, 1, 6, 1\) of rows \(32, 2"):
        read("cut").augment(batch, None, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"hooks.py:26: KeyError: 'scale'$"):
        read("broken").augment(batch, None, np.random.default_rng(0))


FACTORY = """
import numpy as np
import tensorflow as tf

x = np.arange(120, dtype="float64").reshape(40, 3)
y = np.arange(40) % 4
pairs = tf.data.Dataset.from_tensor_slices((x, y))

def plain():
    return {"test": pairs}

def whole():
    hot = pairs.map(lambda x, y: (x, tf.one_hot(y, 4)))
    test = pairs.skip(4).take(8)
    return {"train": hot.skip(12).batch(5), "validation": hot.take(4), "test": test}

def counted():
    return {**whole(), "train": pairs.filter(lambda x, y: y > 1), "calibration": pairs.take(3)}

def values():
    rows = tf.data.Dataset.from_tensor_slices(x)
    return {"train": rows, "validation": rows, "test": rows.batch(7)}

def endless():
    return {"test": pairs.repeat()}

def listed():
    return [pairs]

def misnamed():
    return {"tests": pairs}

def arrays():
    return {"test": x}

def flat():
    return {"test": tf.data.Dataset.from_tensor_slices((x[:, :2], y))}

def empty():
    return {"test": pairs.take(0)}

def spoilt():
    return {"test": tf.data.Dataset.from_tensor_slices((x / 0, y))}

def late():
    def rows():
        yield np.zeros(3), 0
        yield np.zeros(3), 1 // 0
    spec = (tf.TensorSpec((3,)), tf.TensorSpec((), tf.int64))
    return {"test": tf.data.Dataset.from_generator(rows, output_signature=spec)}

def broken():
    return {"test": unknown}
"""


def made(folder: Path, name: str, **options: Any) -> Dataset:
    (folder / "mine.py").write_text(FACTORY)
    return read_data(f"{folder / 'mine.py'}:{name}", shape=(3,), **options)


def test_a_function_gives_datasets(tmp_path: Path) -> None:
    data = made(tmp_path, "plain")
    assert (data.name, data.metric, len(data.pool), len(data.test)) == ("mine", "top1", 8, 32)
    data = made(tmp_path, "whole", training=True)
    training = data.to_train("test")
    assert (len(training.rows), len(training.validation), len(data.test)) == (28, 4, 8)
    assert training.validation.y is not None
    assert training.validation.y.tolist() == [0, 1, 2, 3]
    assert data.test.x[:, 0].tolist() == list(range(12, 36, 3))
    assert (len(data.pool), data.pool[0].tolist()) == (28, [36, 37, 38])
    epochs = [list(training.rows.epoch(8, np.random.default_rng(seed))) for seed in (0, 0, 1)]
    assert [len(x) for x, _ in epochs[0]] == [8, 8, 8, 4]
    for epoch in epochs:
        assert all(x.dtype == np.float32 and (x[:, 0] / 3 % 4 == y).all() for x, y in epoch)
    order = [np.concatenate([x[:, 0] for x, _ in epoch]).tolist() for epoch in epochs]
    assert order[0] == order[1] != order[2]
    assert sorted(order[2]) == list(range(36, 120, 3))


def test_rows_of_a_function_are_counted_where_it_does_not_know(tmp_path: Path) -> None:
    data = made(tmp_path, "counted", training=True)
    assert (len(data.to_train("test").rows), len(data.pool)) == (20, 3)


def test_rows_without_targets_are_their_own(tmp_path: Path) -> None:
    data = made(tmp_path, "values", training=True)
    assert (data.metric, data.test.y, len(data.test)) == ("mse", None, 40)
    assert all(y is None for _, y in data.to_train("t").rows.epoch(9, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("endless", "mine.py:endless: test never ends; end it with .take"),
        ("listed", "mine.py:listed gave list; give a dict of tf.data datasets: train, validation"),
        ("misnamed", "mine.py:misnamed gave 'tests', which is unknown; use train, validation"),
        ("arrays", "mine.py:arrays: test is ndarray; give a tf.data.Dataset"),
        ("flat", r"mine.py: test has rows of shape \(2,\), but the model takes \(3,\)"),
        ("empty", "mine.py: test is empty; give at least 1 row"),
        ("spoilt", "mine.py: test holds float64 rows that are not all finite numbers; clean them"),
        ("late", r"mine.py:48: test: ZeroDivisionError: integer division or modulo by zero$"),
        ("broken", "mine.py:53: NameError: name 'unknown' is not defined$"),
        ("nothing", "mine.py: there is no function nothing, which --data asks for"),
    ],
)
def test_a_wrong_function_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught, np.errstate(all="ignore"):
        made(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_parts_that_a_recipe_needs_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine.py:plain gave no 'train'; the recipe needs it"):
        made(tmp_path, "plain", training=True)


def damaged(folder: Path) -> Path:
    pictures(folder, {"a": 3, "b": 3})
    file = folder / "a" / "001.png"
    file.write_bytes(file.read_bytes()[:40])
    return folder


def linked(folder: Path) -> Path:
    outside = pictures(folder / "outside", {"c": 1}) / "c" / "000.png"
    (pictures(folder / "inside", {"a": 2, "b": 2}) / "a" / "link.png").symlink_to(outside)
    return folder / "inside"


def linked_folder(folder: Path) -> Path:
    outside = pictures(folder / "outside", {"c": 1})
    (pictures(folder / "inside", {"a": 2}) / "b").symlink_to(outside / "c")
    return folder / "inside"


def mixed(folder: Path) -> Path:
    sound(folder / "a" / "x.wav", np.zeros((5, 1)))
    return pictures(folder, {"b": 1})


def spoken(folder: Path, rate: int = RATE, cut: int = 0) -> Path:
    sound(folder / "a" / "1.wav", np.zeros((20, 1)))
    sound(folder / "b" / "2.wav", np.zeros((20, 1)), rate=rate)
    file = folder / "b" / "2.wav"
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) - cut])
    return folder


def beside(folder: Path, name: str) -> Path:
    (pictures(folder, {"a": 2, "b": 2}) / name).write_text("a\nc\n")
    return folder


def alone(folder: Path, *names: str) -> Path:
    for name in names:
        pictures(folder / name, {"a": 2, "b": 2})
    return folder


def unlike(folder: Path) -> Path:
    pictures(folder / "train", {"a": 2, "b": 2})
    pictures(folder / "test", {"a": 2, "c": 2})
    return folder


def void(folder: Path) -> Path:
    (pictures(folder, {"a": 2}) / "b").mkdir()
    return folder


BAD: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "damaged image": (damaged, (4, 4, 1), r"a/001.png: not a readable image \(.+\); copy it again"),
    "link": (linked, (4, 4, 1), "inside/a/link.png: a link that leaves .*inside; copy the file"),
    "linked folder": (linked_folder, (4, 4, 1), "inside/b/000.png: a link that leaves .*inside"),
    "mixed": (mixed, (4, 4, 1), ": images and sounds; keep one kind in a folder"),
    "cut sound": (lambda f: spoken(f, cut=3), (9,), r"b/2.wav: not a readable WAV \(.+\); save it"),
    "rate": (lambda f: spoken(f, 8000), (9,), "2.wav: 8000 samples a second, but .*1.wav has 4000"),
    "a model of images": (spoken, (9, 9, 1), r"sounds for a model that takes \(9, 9, 1\): it must"),
    "a model of sounds": (lambda f: pictures(f, {"a": 2}), (9,), r"images for a model that takes "),
    "stray file": (lambda f: beside(f, "notes.md"), (4, 4, 1), "notes.md: a file beside the class"),
    "other file": (
        lambda f: beside(f, "a/notes.md"),
        (4, 4, 1),
        "a/notes.md: neither an image",
    ),
    "labels": (lambda f: beside(f, "labels.txt"), (4, 4, 1), "labels.txt: a, c, but the class fol"),
    "no test": (lambda f: alone(f, "train"), (4, 4, 1), ": train alone; test is needed"),
    "no train": (
        lambda f: alone(f, "test", "validation"),
        (4, 4, 1),
        ": test and validation alone; test is needed, and train for validation",
    ),
    "beside splits": (lambda f: alone(f, "train", "dogs"), (4, 4, 1), "dogs: beside train, valid"),
    "unlike splits": (unlike, (4, 4, 1), ": b, c in one of test and train alone; every class nee"),
    "no files": (void, (4, 4, 1), "b: a class without files; add some, or remove the folder"),
    "no classes": (lambda f: f, (4, 4, 1), ": no class folders; put the files of each class in"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_folder_is_one_line(tmp_path: Path, what: str) -> None:
    make, shape, message = BAD[what]
    with pytest.raises(ConfigError, match=message) as caught:
        read_data(str(make(tmp_path)), shape=shape)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "for a model that takes" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "f.py:g"}, "--features f.py:g: it is for --data with a folder, not .*my.npz"),
        ({"augment": "f.py"}, "--augment f.py: give a file and a function of it, my_file.py:func"),
        ({"augment": "f.py:g"}, "--augment f.py:g: there is no file f.py"),
        ({"augment": "f.py:1"}, "--augment f.py:1: give a file and a function of it"),
    ],
)
def test_wrong_hooks_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    np.savez(tmp_path / "my.npz", x=np.zeros((9, 3)))
    with pytest.raises(ConfigError, match=f"^{message}"):
        read_data(str(tmp_path / "my.npz"), shape=(3,), training=True, **options)


def test_a_file_that_does_not_run_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import numpy\n\ndef make(:\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"bad.py:3: SyntaxError: invalid syntax"):
            read_data(f"{tmp_path / 'bad.py'}:make", shape=(3,))


def test_rows_are_told_apart_by_where_they_come_from(tmp_path: Path) -> None:
    """Those of a function by its file, as it may change them each time; those that are read in
    every epoch by their files."""
    file = tmp_path / "noisy.py"
    file.write_text(
        "import tensorflow as tf\n"
        "def make():\n"
        "    rows = tf.data.Dataset.from_tensor_slices((tf.zeros((12, 3)), tf.range(12) % 2))\n"
        "    noisy = rows.map(lambda x, y: (x + tf.random.normal((3,)), y))\n"
        "    return {'train': noisy, 'validation': rows.take(4), 'test': rows.take(5)}\n"
    )

    def key() -> str:
        data = read_data(f"{file}:make", shape=(3,), training=True)
        return data.to_train("test").rows.key()

    known = key()
    assert key() == known
    file.write_text(file.read_text() + "# other rows\n")
    assert key() != known

    pictures(tmp_path / "all", {"a": 3})
    files = sorted((tmp_path / "all" / "a").iterdir())
    rows = folders.Files(files, np.zeros(3, np.int64), lambda file: np.zeros(1, np.float32))
    known = rows.key()
    assert rows.rows(np.array([0, 1])).key() != known
    files[1].write_bytes(files[1].read_bytes() + b" ")
    assert rows.key() != known
