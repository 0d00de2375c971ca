"""Datasets: the user's .npz, the calibration rows, and what is refused."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.data import Dataset, Rows, Split, check_shape, divided, held_out, load_npz
from edgecompress.errors import ConfigError
from tests.damaged_npz import DAMAGED, GOOD, header, zipped


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "my.npz"
    np.savez(path, **arrays)
    return path


def rows(n: int) -> np.ndarray:
    return np.arange(n * 3, dtype=np.float32).reshape(n, 3)


def test_calibration_rows_are_kept_out_of_the_test(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=rows(50), y=np.arange(50)), seed=3)
    assert (len(data.pool), len(data.test)) == (10, 40)
    assert not {tuple(row) for row in data.pool} & {tuple(row) for row in data.test.x}
    assert data.test.y is not None
    assert (data.test.x[:, 0] / 3 == data.test.y).all()
    assert data.metric == "top1"
    again = load_npz(tmp_path / "my.npz", seed=3)
    assert (again.pool == data.pool).all()


def test_separate_calibration_rows_leave_the_test_whole(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=rows(5), x_calibration=rows(2)))
    assert (len(data.pool), len(data.test), data.metric) == (2, 5, "mse")


def test_calibration_rows_alone_are_not_judged(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x_calibration=rows(7)))
    assert (len(data.pool), len(data.test), data.test.x.shape) == (7, 0, (0, 3))
    with pytest.raises(ConfigError, match="the calibration rows have no y"):
        data.labelled()


def test_a_large_file_gives_at_most_200_rows_to_calibration(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=rows(3000).astype(np.int8), y=np.zeros((3000, 2))))
    assert (len(data.pool), len(data.test), data.metric) == (200, 2800, "mse")
    assert data.test.x.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": rows(3)}, r"no array named x \(found: z\); save np.savez\(f, x=x, y.*"),
        ({"x": rows(3), "w": rows(3)}, "unknown array w; allowed: x, x_cal.*, y, y_cal.*"),
        ({"x": rows(3), "y": np.zeros(4)}, "x has 3 rows but y has 4"),
        ({"x": np.array([["a"]])}, "x is <U1 .*; numbers of shape .* are needed"),
        ({"x": np.zeros((0, 3))}, r"x is float64 \(0, 3\); numbers of .*"),
        ({"x": np.full((3, 3), np.nan)}, "x holds NaN or infinite values; clean the data"),
        ({"x": rows(1)}, "1 row to judge on; at least 2, one of them to calibrate"),
        ({"x": rows(3), "x_calibration": np.zeros((2, 4))}, r"x_calibration rows are \(4,\) but.*"),
        ({"x": np.full((3, 3), 1e300)}, "x holds NaN or infinite values; clean the data"),
        ({"x": np.array([{}, {}], dtype=object)}, r"not a readable .npz \(x.npy holds Python ob.*"),
        (
            {"x": rows(3), "y": 1},
            r"y is int64 \(\); give a whole number per row of x, its class, .*",
        ),
        ({"x": rows(3), "y": ["a", "b", "c"]}, r"y is <U1 \(3,\); give a whole number per row .*"),
        ({"x": rows(3), "y": np.zeros((3, 0))}, r"y is float64 \(3, 0\); give a whole number .*"),
        ({"x": rows(3), "y": [0.5, np.nan, 1]}, "y holds NaN or infinite values; clean the data"),
        ({"x": rows(3), "y_calibration": [1]}, "y_calibration without x_calibration; save both.*"),
        (
            {"x": rows(3), "x_calibration": rows(2), "y_calibration": [1, 2]},
            "y_calibration without y; save both, or neither",
        ),
        (
            {"x": rows(3), "y": [1, 2, 3], "x_calibration": rows(2), "y_calibration": [1]},
            "x_calibration has 2 rows but y_calibration has 1",
        ),
        (
            {"x": rows(2), "y": [1, 2], "x_calibration": rows(2), "y_calibration": [1.0, 2.0]},
            "y holds classes but y_calibration float targets; save both alike",
        ),
        (
            {"x": rows(2), "y": rows(2), "x_calibration": rows(2), "y_calibration": rows(2)[:, :2]},
            r"y_calibration rows are \(2,\) but y rows are \(3,\)",
        ),
        ({"x_train": rows(2)}, r"no array named x \(found: x_train\); save .*"),
        ({"x_calibration": rows(2), "x_train": rows(2)}, "x_train without x; save both, .*"),
        ({"x": rows(2), "x_test": rows(2)}, "x and x_test are the same; save one of them"),
        ({"x": rows(2), "x_validation": rows(2)}, "x_validation without x_train; save both, .*"),
        (
            {"x": rows(2), "y": [0, 1], "x_train": rows(2) + 1},
            "x_train without y_train; save both, or neither",
        ),
        (
            {"x": rows(2), "y": [0, 1], "x_train": rows(2) + 1, "y_train": [0.5, 1.0]},
            "y holds classes but y_train float targets; save both alike",
        ),
        (
            {"x": rows(4), "x_train": rows(4).astype(np.int8)},
            "x and x_train are the same rows; leave x_train out, and some rows of x are held out.*",
        ),
        (
            {"x": rows(2), "x_train": rows(4), "x_validation": rows(4)},
            "x_train and x_validation are the same rows; leave x_validation out, .*",
        ),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(ConfigError, match=f"^{path}: {message}$"):
        load_npz(path)


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_one_line(tmp_path: Path, what: str) -> None:
    make, message = DAMAGED[what]
    path = tmp_path / "bad.npz"
    path.write_bytes(make())
    with pytest.raises(ConfigError) as caught:
        load_npz(path)
    assert str(caught.value).startswith(f"{path}: not a readable .npz ({message}")
    assert str(caught.value).endswith("; copy it again, or save it with np.savez(f, x=x, y=y)")


@settings(deadline=None, max_examples=300)
@given(st.booleans(), st.data())
def test_no_byte_makes_reading_fail_otherwise(inside: bool, data: st.DataObject) -> None:
    """Of the archive, or of an array in a sound archive."""
    plain = header((4, 3)) + np.ones((4, 3), np.float32).tobytes()
    content = bytearray(plain if inside else GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of headers that Python 2 wrote
        path = Path(folder) / "any.npz"
        path.write_bytes(zipped(x=bytes(content)) if inside else bytes(content))
        try:
            assert np.isfinite(load_npz(path).test.x).all()
        except ConfigError as error:
            assert str(error).startswith(f"{path}: ")


CLASSES = np.array([2, 0, 1, 2, 2, 1, 0, 1, 0, 2])
ONE_HOT = np.eye(3)[CLASSES]


@pytest.mark.parametrize(
    "y",
    [
        CLASSES,
        CLASSES.astype(np.uint8),
        CLASSES[:, None],
        CLASSES.reshape(-1, 1, 1),
        ONE_HOT,
        ONE_HOT.astype(np.float32),
        ONE_HOT.astype(int),
        ONE_HOT.astype(bool),
    ],
    ids=lambda y: f"{y.dtype}{list(y.shape)}",
)
def test_labels_that_newcomers_have_are_classes(tmp_path: Path, y: np.ndarray) -> None:
    data = load_npz(saved(tmp_path, x=rows(10), y=y))
    assert data.metric == "top1"
    for x, found in ((data.test.x, data.test.y), (data.pool, data.pool_y)):
        assert found is not None
        assert (found.dtype, found.ndim) == (np.int64, 1)
        assert found.tolist() == CLASSES[(x[:, 0] / 3).astype(int)].tolist()


@pytest.mark.parametrize(
    "y",
    [
        CLASSES / 2,
        (CLASSES / 2)[:, None],
        np.where(np.arange(30).reshape(10, 3) == 4, 1, ONE_HOT),  # two in row 1
        np.where(np.arange(30).reshape(10, 3) < 3, 0, ONE_HOT),  # none in row 0
        ONE_HOT * 0.9,
        np.maximum(ONE_HOT, 0.5),
        ONE_HOT * 2,
        np.ones((10, 1)),
        np.ones((10, 2, 2), int),
    ],
    ids=lambda y: f"{y.dtype}{list(y.shape)}",
)
def test_other_targets_stay_values(tmp_path: Path, y: np.ndarray) -> None:
    data = load_npz(saved(tmp_path, x=rows(10), y=y))
    assert data.metric == "mse"
    assert data.test.y is not None
    assert data.test.y.dtype == np.float32
    expected = y[(data.test.x[:, 0] / 3).astype(int)]
    assert np.array_equal(data.test.y, expected.astype(np.float32))


def test_booleans_are_the_classes_0_and_1(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=rows(5), y=np.arange(5) > 2, x_calibration=rows(1)))
    assert data.metric == "top1"
    assert data.test.y is not None
    assert data.test.y.tolist() == [0, 0, 0, 1, 1]


def test_separate_calibration_rows_may_have_their_targets(tmp_path: Path) -> None:
    own = {"x": rows(5), "y": np.arange(5)[:, None], "x_calibration": rows(3) + 1}
    data = load_npz(saved(tmp_path, **own, y_calibration=np.eye(4)[[3, 0, 1]]))
    assert (len(data.test), data.metric) == (5, "top1")
    x, y = data.labelled(9)
    assert (x == rows(3) + 1).all()
    assert y is not None
    assert y.tolist() == [3, 0, 1]
    values = load_npz(saved(tmp_path, **{**own, "y": rows(5)}, y_calibration=rows(3)))
    assert values.metric == "mse"
    assert (values.labelled()[1] == rows(3)).all()  # type: ignore[operator]


def test_targets_of_the_test_alone_do_not_label_the_calibration_rows(tmp_path: Path) -> None:
    for y in (np.arange(5), rows(5) / 2):
        data = load_npz(saved(tmp_path, x=rows(5), y=y, x_calibration=rows(3)))
        with pytest.raises(ConfigError, match=r"^data my: the calibration rows have no y; add"):
            data.labelled()


def test_calibration_draws_without_replacement_and_by_seed() -> None:
    data = Dataset("d", "mse", rows(100), Split("test", rows(2), None))
    drawn = data.calibration(20, seed=1)
    assert len({tuple(row) for row in drawn}) == 20
    assert (drawn == data.calibration(20, seed=1)).all()
    assert (drawn != data.calibration(20, seed=2)).any()
    assert len(data.calibration(500)) == 100
    with pytest.raises(ConfigError, match="calibration: 0 samples; use at least 1"):
        data.calibration(0)


def test_rows_of_another_shape_are_refused() -> None:
    data = Dataset("d", "mse", rows(4), Split("test", rows(2), None))
    check_shape(data, (3,), model="m")
    with pytest.raises(ConfigError, match=r"^data d, calibration: rows are \(3,\) but m takes"):
        check_shape(data, (4, 1), model="m")


def test_calibration_rows_keep_their_targets(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=rows(50), y=np.arange(50)))
    x, y = data.labelled(4, seed=5)
    assert (x == data.calibration(4, seed=5)).all()
    assert y is not None
    assert (x[:, 0] / 3 == y).all()
    bare = Dataset("d", "top1", rows(4), Split("test", rows(2), None))
    with pytest.raises(ConfigError, match="^data d: the calibration rows have no y; add their"):
        bare.labelled(2)


def ids(x: np.ndarray) -> set[float]:
    """Which of `rows` there are."""
    return set((x[:, 0] / 3).tolist())


def learnt(data: Dataset, size: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One epoch of the rows to train on, with their targets."""
    epoch = list(data.to_train("test").rows.epoch(size, np.random.default_rng(seed)))
    assert [len(x) for x, _ in epoch][:-1] == [size] * (len(epoch) - 1)
    assert all(x.dtype == np.float32 for x, _ in epoch)
    return np.concatenate([x for x, _ in epoch]), np.concatenate([y for _, y in epoch])


@pytest.mark.parametrize("spelt", ["x", "x_test"])
def test_rows_to_train_on_leave_the_test_whole(tmp_path: Path, spelt: str) -> None:
    """And the names of the files that Keras downloads will do."""
    arrays = {
        spelt: rows(20) + 900,
        spelt.replace("x", "y"): np.arange(20) % 4,
        "x_train": rows(100).astype(np.uint16),
        "y_train": np.arange(100, dtype=np.uint8) % 4,
    }
    data = load_npz(saved(tmp_path, **arrays), seed=2, training=True)
    assert (len(data.test), data.test.source) == (20, "my.npz")
    training = data.to_train("test")
    x, y = learnt(data)
    assert (len(training.rows), len(training.validation)) == (90, 10)
    assert not ids(x) & ids(training.validation.x)
    assert (x[:, 0] / 3 % 4 == y).all()
    assert training.validation.y is not None
    assert np.bincount(training.validation.y).tolist() == [2, 3, 2, 3]
    assert training.validation.source == "a tenth of the training rows of my.npz, drawn with seed 2"
    assert ids(data.pool) == ids(x)
    assert (data.test.x == load_npz(tmp_path / "my.npz").test.x).all()


def test_rows_to_train_on_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, x=rows(9), x_train=rows(30) + 1, x_validation=rows(4) + 2)
    training = load_npz(path, training=True).to_train("test")
    assert (len(training.rows), len(training.validation)) == (30, 4)
    assert training.validation.source == "my.npz: x_validation"
    with pytest.raises(ConfigError, match="^finetune: data my has no rows to train on; give x_tr"):
        load_npz(path).to_train("finetune")


def test_undivided_rows_are_divided(tmp_path: Path) -> None:
    y = np.repeat(np.arange(4), [50, 30, 15, 5])
    data = load_npz(saved(tmp_path, x=rows(100), y=y), seed=4, training=True)
    training = data.to_train("test")
    x, targets = learnt(data)
    assert (len(data.test), len(training.validation), len(x)) == (20, 10, 70)
    parts = [ids(part) for part in (data.test.x, training.validation.x, x)]
    assert len(set.union(*parts)) == 100
    assert ids(data.pool) <= parts[2]
    assert np.bincount(data.test.y).tolist() == [10, 6, 3, 1]  # type: ignore[arg-type]
    assert (y[(x[:, 0] / 3).astype(int)] == targets).all()
    assert data.test.source == "a fifth of my.npz, drawn with seed 4"
    assert training.validation.source == "a tenth of my.npz, drawn with seed 4"
    other = load_npz(tmp_path / "my.npz", seed=5, training=True)
    assert ids(other.test.x) != parts[0]


def test_given_calibration_rows_are_taken_where_rows_are_divided(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=rows(50), x_calibration=rows(3) + 1), training=True)
    assert (data.pool == rows(3) + 1).all()
    assert len(data.test) == 10


def test_too_few_rows_to_divide_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, x=rows(2), y=[0, 1])
    with pytest.raises(ConfigError, match=f"^{path}: 2 rows; at least 3, to train, to validate"):
        load_npz(path, training=True)


def test_test_rows_that_are_learnt_are_counted(tmp_path: Path) -> None:
    x = rows(30)
    x[[3, 11]] = x[20]
    path = saved(tmp_path, x=x[:15], x_train=x[15:].astype(np.float64))
    data = load_npz(path, training=True)
    kept = ids(learnt_inputs(data))
    assert 20.0 in kept
    assert data.test.source == "my.npz; 2 of its rows are among the training rows too"
    path = saved(tmp_path, x=x[:15], x_train=x[15:20], x_validation=x[20:])
    source = load_npz(path, training=True).test.source
    assert source == "my.npz; 2 of its rows are among the validation rows too"


def learnt_inputs(data: Dataset) -> np.ndarray:
    epoch = data.to_train("test").rows.epoch(100, np.random.default_rng(0))
    return np.concatenate([x for x, _ in epoch])


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 200), st.integers(1, 9), st.integers(0, 99))
def test_a_division_is_one(n: int, classes: int, seed: int) -> None:
    """Each row is in one part, no part is empty, and each class has its share of each."""
    y = np.random.default_rng(n).integers(0, classes, n)
    found = divided("d", Rows(rows(n), y), seed)
    assert sorted(np.concatenate(found)) == list(range(n))
    train, validation, test = map(len, found)
    assert min(train, validation, test) >= 1
    assert abs(test - n / 5) <= 1 and abs(validation - n / 10) <= 1
    shares = np.bincount(y[found[2]], minlength=classes) - np.bincount(y, minlength=classes) / 5
    assert np.abs(shares).max() < 1 + 1e-9
    again = divided("d", Rows(rows(n) * 2, y), seed)
    assert all((a == b).all() for a, b in zip(found, again, strict=True))


def test_values_are_held_out_at_random() -> None:
    rest, held = held_out(Rows(rows(100)), 10, 0)
    assert (len(rest), len(held)) == (90, 10)
    assert len(set(held % 10)) > 2


def test_an_epoch_gives_every_row_once_in_an_order_of_its_own() -> None:
    data = Rows(rows(20).astype(np.int16), np.arange(20))
    orders = []
    for seed in (0, 0, 1):
        epoch = list(data.epoch(8, np.random.default_rng(seed)))
        assert [len(x) for x, _ in epoch] == [8, 8, 4]
        assert all(x.dtype == np.float32 and (x[:, 0] / 3 == y).all() for x, y in epoch)
        orders.append(np.concatenate([y for _, y in epoch if y is not None]).tolist())
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(20))


@pytest.mark.parametrize("whole", [(4, 5, 1), (None, None, 1)])
def test_grey_images_get_the_channel_of_the_model(tmp_path: Path, whole: Any) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4, 5)).astype(np.float32)
    path = saved(tmp_path, x=x[:40], y=np.arange(40) % 2, x_train=x[40:], y_train=np.arange(20) % 2)
    data = load_npz(path, training=True, shape=whole)
    found = data.to_train("test")
    for rows in (data.test.x, data.pool, found.validation.x, found.rows.x):  # type: ignore[attr-defined]
        assert rows.shape[1:] == (4, 5, 1)
    assert np.array_equal(data.test.x[..., 0], x[:40])
    for other in ((5, 4, 1), (4, 5, 3), (4, 5), (1,)):
        assert load_npz(path, shape=other).test.x.shape[1:] == (4, 5)
