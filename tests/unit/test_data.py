"""Datasets: the user's .npz, the calibration rows, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress.data import Dataset, Split, check_shape, load_npz
from edgecompress.errors import ConfigError


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


def test_a_large_file_gives_at_most_200_rows_to_calibration(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=rows(3000).astype(np.int8), y=np.zeros((3000, 2))))
    assert (len(data.pool), len(data.test), data.metric) == (200, 2800, "mse")
    assert data.test.x.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": rows(3)}, r"no array named x \(found: z\); save np.savez\(f, x=x, y=y\)"),
        ({"x": rows(3), "w": rows(3)}, "unknown array w; allowed: x, x_calibration, y"),
        ({"x": rows(3), "y": np.zeros(4)}, "x has 3 rows but y has 4"),
        ({"x": np.array([["a"]])}, "x is <U1 .*; numbers of shape .* are needed"),
        ({"x": np.zeros((0, 3))}, r"x is float64 \(0, 3\); numbers of .*"),
        ({"x": np.full((3, 3), np.nan)}, "x holds NaN or infinite values; clean the data"),
        ({"x": rows(1)}, "1 row in x; at least 2, one of them to calibrate"),
        ({"x": rows(3), "x_calibration": np.zeros((2, 4))}, r"x_calibration rows are \(4,\) but.*"),
        ({"x": np.array([{}, {}], dtype=object)}, "not a readable .npz .*"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(ConfigError, match=f"^{path}: {message}$"):
        load_npz(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x93NUMPY", b"text"])
def test_files_that_are_no_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.npz: not a readable \.npz"):
        load_npz(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", rows(3))
    with pytest.raises(ConfigError, match=r"one\.npy: not a readable \.npz \(a single array\)"):
        load_npz(tmp_path / "one.npy")


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
