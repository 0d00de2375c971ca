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

from edgecompress.data import Dataset, Split, check_shape, load_npz
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
        ({"x": rows(1)}, "1 row in x; at least 2, one of them to calibrate"),
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
