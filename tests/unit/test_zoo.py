"""The zoo: finding, checking, pulling and training models, and the models that come with us."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecompress import zoo
from edgecompress.errors import ConfigError, EdgeCompressError, ToolError
from tests.damaged_npz import GOOD as GOOD_NPZ

GOOD = """
from __future__ import annotations
from pathlib import Path
import numpy as np
from edgecompress.data import Dataset, Split
from .numbers_beside import ROWS

def model(folder):
    return folder / "weights.keras"

def dataset(folder):
    x = np.zeros((ROWS, 4), np.float32)
    y = np.arange(ROWS) % 2
    return Dataset("mine", "top1", x[:1], Split("test", x, y), labels=("a", "b"))
"""

CONTENT = b"twelve bytes"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of models that comes first in the search, and a cache of its own."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("EC_MODELS_DIR", str(folder))
    monkeypatch.setenv("EC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EC_DATA_DIR", raising=False)
    return folder


def write(models: Path, name: str, text: str) -> Path:
    folder = models / name
    folder.mkdir()
    (folder / "model.py").write_text(text)
    (folder / "numbers_beside.py").write_text("ROWS = 6\n")
    return folder


# --- finding ------------------------------------------------------------------------------------


def test_our_own_models_are_found() -> None:
    assert {"kws", "mlperf_ic", "mlperf_kws"} <= set(zoo.names())


def test_an_unknown_name_lists_the_known_ones_and_a_close_match() -> None:
    with pytest.raises(
        ConfigError, match=r"'kwz' is unknown; did you mean kws\? known: .*mlperf_ic"
    ):
        zoo.folder("kwz")


def test_the_first_folder_of_ec_models_dir_wins(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    first_mine = write(models, "mine", GOOD)
    write(second, "mine", GOOD)
    other = write(second, "other", GOOD)
    own_kws = write(second, "kws", GOOD)
    monkeypatch.setenv("EC_MODELS_DIR", f"{models}:{second}")
    assert zoo.folder("mine") == first_mine
    assert zoo.folder("other") == other
    assert zoo.folder("kws") == own_kws


def test_models_of_the_current_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    mine = write(tmp_path / "models", "here", GOOD)
    monkeypatch.chdir(tmp_path)
    assert zoo.folder("here") == mine


def test_a_folder_without_model_py_is_no_model(models: Path) -> None:
    (models / "notes").mkdir()
    assert "notes" not in zoo.names()


# --- model.py -----------------------------------------------------------------------------------


def test_files_beside_model_py_are_imported_without_touching_the_path(models: Path) -> None:
    write(models, "mine", GOOD)
    before = list(sys.path)
    assert len(zoo.dataset("mine").test) == 6
    assert sys.path == before
    assert "numbers_beside" not in sys.modules


def test_two_models_may_have_files_of_the_same_name(models: Path) -> None:
    write(models, "mine", GOOD)
    (write(models, "other", GOOD) / "numbers_beside.py").write_text("ROWS = 8\n")
    assert [len(zoo.dataset(name).test) for name in ("mine", "other")] == [6, 8]


def test_a_missing_weights_file_says_what_to_do(models: Path) -> None:
    write(models, "mine", GOOD)
    with pytest.raises(ConfigError, match=r"weights\.keras, which does not exist; .*train mine"):
        zoo.artifact("mine")


def test_the_first_line_of_the_docstring_describes_a_model(models: Path) -> None:
    write(models, "mine", '"""Sorts screws.\n\nMore."""\nimport nothing_of_this_name\n')
    write(models, "silent", GOOD)
    assert (zoo.describe("mine"), zoo.describe("silent")) == ("Sorts screws.", "")


def test_load_takes_a_file_where_no_model_has_the_name(models: Path) -> None:
    with pytest.raises(EdgeCompressError, match="nothing-here.keras"):
        zoo.load(models / "nothing-here.keras")


def test_model_must_give_a_path(models: Path) -> None:
    write(models, "mine", GOOD.replace('folder / "weights.keras"', '"weights.keras"'))
    with pytest.raises(ConfigError, match=r"mine/model\.py: model\(\) gave str; give a pathlib"):
        zoo.artifact("mine")


BROKEN = {
    "no dataset": (
        "def dataset(",
        "def data(",
        r"dataset\(\) is missing; define dataset",
    ),
    "import": ("import numpy as np", "import nonumpy as np", r":4: ModuleNotFoundError: No module"),
    "sibling": (
        "from .numbers_beside",
        "from numbers_beside",
        r":6: No module named 'numbers_beside'; .* `from \. import numbers_beside`",
    ),
    "syntax": ("def dataset(folder):", "def dataset(folder)", r":11: SyntaxError"),
    "raises": ("y = np.arange(ROWS) % 2", "y = ROWS / 0", r":13: ZeroDivisionError: division by"),
    "type": ('("a", "b"))', '("a", "b")).test', r"dataset\(\) gave Split; give an edgecompress"),
    "metric": ('"top1"', '"f1"', r"metric 'f1'; use one of top1, auc, mse"),
    "dtype": ("np.float32", "np.float64", r"pool is float64; give a float32 array"),
    "no rows": ("x[:1]", "x[:0]", r"pool has shape \(0, 4\)"),
    "shape": (
        "x[:1]",
        "x[:1, :3]",
        r"'test': x has rows of shape \(4,\), the pool has \(3,\)",
    ),
    "rows": ("% 2", "[:5]", r"split 'test': 6 rows of x but 5 of y"),
    "labels": ("% 2", "% 3", r"split 'test': y runs from 0 to 2; labels are 0 to 1"),
    "float labels": ("% 2", "/ 2", r"split 'test': y is float64 \(6,\); give one integer label"),
    "no labels": ('"test", x, y', '"test", x, None', r"y is missing; top1 needs one label"),
    "scalar labels": (
        '"test", x, y',
        '"test", x, np.array(3)',
        r"'test': y is int64 \(\); give an",
    ),
    "listed labels": ('"test", x, y', '"test", x, [0] * 6', r"'test': y is list; give an array of"),
    "pool labels": (
        'labels=("a", "b")',
        "pool_y=y[:1] + 2, labels=('a', 'b')",
        r"pool: y runs from 2 to 2; labels are 0 to 1",
    ),
    "pool rows": ('labels=("a", "b")', "pool_y=y", r"pool: 1 rows of x but 6 of y"),
    "targets": (
        'Dataset("mine", "top1", x[:1], Split("test", x, y)',
        'Dataset("mine", "mse", x[:1], Split("test", x, x * np.nan)',
        r"split 'test': y holds NaN or infinite",
    ),
    "no split": ('Split("test", x, y)', "x", r"AttributeError: 'numpy.ndarray' object has no attr"),
    "zip": (
        "x = np",
        "import zipfile; zipfile.ZipFile(__file__)\n    x = np",
        r":12: BadZipFile: File is not a zip file; a file that it reads is damaged, copy or pull",
    ),
    "tar": (
        "x = np",
        "import tarfile; tarfile.open(__file__)\n    x = np",
        r":12: ReadError: .*dam",
    ),
    "zlib": ("x = np", "import zlib; zlib.decompress(b'x')\n    x = np", r":12: error: .*damaged"),
    "end": ("x = np", "raise EOFError\n    x = np", r":12: EOFError: no message; .* is damaged"),
    "memory": ("x = np", "raise MemoryError\n    x = np", r":12: MemoryError: no message$"),
    "nan": ("np.zeros((ROWS, 4)", "np.full((ROWS, 4), np.nan", r"pool holds NaN or infinite"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_wrong_model_py_is_one_line_that_names_the_file(models: Path, what: str) -> None:
    old, new, message = BROKEN[what]
    text = GOOD.replace(old, new)
    assert text != GOOD
    folder = write(models, "mine", text)
    with pytest.raises(ConfigError, match=message) as caught:
        zoo.dataset("mine")
    assert str(caught.value).startswith(str(folder / "model.py"))
    assert "\n" not in str(caught.value)


def test_a_corrected_model_py_is_read_again(models: Path) -> None:
    folder = write(models, "mine", "import nothing_of_this_name\n")
    with pytest.raises(ConfigError, match="nothing_of_this_name"):
        zoo.dataset("mine")
    (folder / "model.py").write_text(GOOD + "# now longer than before\n")
    assert zoo.dataset("mine").name == "mine"


# --- pull ---------------------------------------------------------------------------------------


def test_a_data_folder_that_is_none_is_not_passed_over(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data" / "cifar10" / "a.npz"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("EC_DATA_DIR", str(tmp_path / "data"))
    assert zoo.data_file("cifar10/a.npz") == file
    assert zoo.data_file("cifar10/b.npz") is None
    for wrong in (tmp_path / "dta", file):
        monkeypatch.setenv("EC_DATA_DIR", str(wrong))
        with pytest.raises(
            ConfigError, match=f"^EC_DATA_DIR={wrong} is no folder; correct it or unset it$"
        ):
            zoo.dataset("mlperf_ic")
    monkeypatch.setenv("EC_DATA_DIR", "")
    assert zoo.data_file("cifar10/a.npz") is None


def test_a_file_that_was_not_pulled_names_the_command_and_the_alternative(models: Path) -> None:
    file = zoo.cache("mine") / "deep" / "a.bin"
    with pytest.raises(ConfigError) as caught:
        zoo.pulled("mine", "deep/a.bin", instead=("x.npz", "y.npz", "z.npz"))
    assert str(caught.value) == (
        f"mine: {file} is missing; run `edgecompress pull mine`, or set EC_DATA_DIR to a folder"
        " with x.npz, y.npz and z.npz"
    )
    file.parent.mkdir(parents=True)
    file.touch()
    assert zoo.pulled("mine", "deep/a.bin", instead=("x", "y")) == file


class Quiet(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT under /good, breaks off under /cut and counts the requests; anything else is
    missing."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"c\r\ntwelve")
            return
        if self.path != "/good":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a local server."""
    Quiet.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def remote(url: str, *, content: bytes = CONTENT, file: str = "deep/file.bin") -> str:
    digest = hashlib.sha256(content).hexdigest()
    entry = f"REMOTE = (Remote({url!r}, {digest!r}, {file!r}),)"
    return f"{GOOD}\nfrom edgecompress.zoo import Remote\n{entry}\n"


def test_pull_fetches_once(models: Path, server: str) -> None:
    write(models, "mine", remote(f"{server}/good"))
    seen: list[tuple[str, int, int]] = []
    (file,) = zoo.pull("mine", progress=lambda *step: seen.append(step))
    assert file == zoo.cache("mine") / "deep" / "file.bin"
    assert file.read_bytes() == CONTENT
    assert seen == [("pull mine", 1, 1)]
    assert zoo.pull("mine") == (file,)
    assert Quiet.asked == ["/good"]
    file.write_bytes(b"damaged")
    zoo.pull("mine")
    assert file.read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(models: Path, server: str) -> None:
    write(models, "mine", remote(f"{server}/good", content=b"other"))
    got, expected = (hashlib.sha256(data).hexdigest() for data in (CONTENT, b"other"))
    with pytest.raises(ToolError, match=f"SHA-256 is {got}, expected {expected}"):
        zoo.pull("mine")
    assert [p for p in zoo.cache("mine").rglob("*") if p.is_file()] == []


def test_pull_says_what_the_server_answered(models: Path, server: str) -> None:
    write(models, "mine", remote(f"{server}/missing"))
    with pytest.raises(ToolError, match=r"/missing: the server answered 404"):
        zoo.pull("mine")
    assert [p for p in zoo.cache("mine").rglob("*") if p.is_file()] == []


def test_a_download_that_breaks_off_leaves_nothing(models: Path, server: str) -> None:
    write(models, "mine", remote(f"{server}/cut"))
    with pytest.raises(ToolError, match=r"/cut: cannot be fetched \(IncompleteRead\(.*; check the"):
        zoo.pull("mine")
    assert [p for p in zoo.cache("mine").rglob("*") if p.is_file()] == []


def test_pull_without_a_server_is_one_line(models: Path) -> None:
    write(models, "mine", remote("http://127.0.0.1:9/good"))
    with pytest.raises(ToolError, match=r"cannot be fetched \(.*refused\); check the network"):
        zoo.pull("mine")


@pytest.mark.parametrize(
    ("url", "file", "message"),
    [
        ("http://example.org/a", "a", "use an https address"),
        ("https://[example.org/a", "a", "ValueError: Invalid IPv6 URL"),
        ("file:///etc/passwd", "a", "use an https address"),
        ("https://example.org/a", "../a", "leaves the cache"),
        ("https://example.org/a", "/a", "leaves the cache"),
    ],
)
def test_pull_refuses_unsafe_entries(models: Path, url: str, file: str, message: str) -> None:
    write(models, "mine", remote(url, file=file))
    with pytest.raises(ConfigError, match=message):
        zoo.pull("mine")


def test_a_remote_that_is_none_is_refused(models: Path) -> None:
    write(models, "mine", GOOD + "\nREMOTE = ('https://example.org/a',)\n")
    with pytest.raises(ConfigError, match=r"REMOTE holds str; give zoo\.Remote entries"):
        zoo.pull("mine")
    write(models, "other", GOOD + "\nREMOTE = 'https://example.org/a'\n")
    with pytest.raises(ConfigError, match=r"REMOTE is str; give a tuple"):
        zoo.pull("other")


def test_a_short_hash_is_refused(models: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    write(models, "mine", remote("https://example.org/a").replace(digest, digest[:-1]))
    with pytest.raises(ConfigError, match="64 lower-case hex digits"):
        zoo.pull("mine")


def test_nothing_to_pull_or_to_train(models: Path) -> None:
    write(models, "mine", GOOD)
    with pytest.raises(ConfigError, match="nothing to pull"):
        zoo.pull("mine")
    with pytest.raises(ConfigError, match=r"has no train\(\)"):
        zoo.train("mine")


def test_train_runs_the_models_own_code_and_gives_its_file(models: Path) -> None:
    text = GOOD + "\ndef train(folder, *, seed, progress):\n"
    text += "    progress('training', 1, 1)\n    model(folder).write_text(str(seed))\n"
    folder = write(models, "mine", text)
    seen: list[tuple[str, int, int]] = []
    assert zoo.train("mine", seed=7, progress=lambda *step: seen.append(step)) == (
        folder / "weights.keras"
    )
    assert (folder / "weights.keras").read_text() == "7"
    assert seen == [("training", 1, 1)]


# --- the models that come with us ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlperf_kws", "mlperf_ic"])
def test_a_reference_model_that_is_not_here_says_both_ways(models: Path, name: str) -> None:
    for ask in (zoo.artifact, zoo.dataset):
        with pytest.raises(ConfigError, match=f"edgecompress pull {name}`, or set EC_DATA_DIR"):
            ask(name)


@pytest.mark.parametrize(
    ("name", "file"), [("mlperf_ic", "cifar10/cifar10_test_2000"), ("mlperf_kws", "kws/kws01")]
)
def test_a_truncated_data_file_is_named(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    path = tmp_path / f"{file}.npz"
    path.parent.mkdir()
    path.write_bytes(GOOD_NPZ[:-40])
    (path.parent / "cifar10_calib_train500.npz").write_bytes(GOOD_NPZ)
    monkeypatch.setenv("EC_DATA_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"^{path}: not a readable \.npz .*; copy it again, or"):
        zoo.dataset(name)


def test_a_truncated_archive_is_one_line(models: Path) -> None:
    file = zoo.cache("mlperf_ic") / "cifar-10-binary.tar.gz"
    file.parent.mkdir(parents=True)
    whole = gzip.compress(np.random.default_rng(0).bytes(4096))
    file.write_bytes(whole[:2000])
    with pytest.raises(
        ConfigError, match=r"mlperf_ic/model\.py:\d+: .*; a file .* is damaged, copy"
    ):
        zoo.dataset("mlperf_ic")


def test_the_pulled_kws01_is_read_like_the_one_of_the_data_folder(
    models: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(data_dir / "kws" / "kws01.npz", allow_pickle=False) as data:
        folder = zoo.cache("mlperf_kws") / "kws01"
        folder.mkdir(parents=True)
        for name, row in zip(data["names"], data["x"], strict=True):
            (folder / str(name)).write_bytes(row.tobytes())
    pulled = zoo.dataset("mlperf_kws")
    manifest = (zoo.folder("mlperf_kws") / "kws01.sha256").read_text()
    pinned = {name: digest for digest, name in map(str.split, manifest.splitlines())}
    assert len(pinned) == 1000
    for file in folder.iterdir():
        assert pinned[file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setenv("EC_DATA_DIR", str(data_dir))
    given = zoo.dataset("mlperf_kws")
    np.testing.assert_array_equal(pulled.test.x, given.test.x)
    np.testing.assert_array_equal(pulled.test.y, given.test.y)
    assert pulled.pool.shape[1:] == given.pool.shape[1:] == (49, 10, 1)
    for source in (pulled, given):
        assert source.pool_y is not None
        assert len(source.pool_y) == len(source.pool)
        assert set(source.pool_y) == set(range(12))


def test_calibration_clips_of_the_reference_set_are_not_in_the_test_split(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EC_DATA_DIR", str(data_dir))
    data = zoo.dataset("mlperf_kws")
    assert 1500 < len(data.pool) < 2995
    steps = np.rint(np.concatenate([data.pool, data.test.x]) / 0.58470291).astype(np.int16)
    pool, test = steps[: len(data.pool)].reshape(len(data.pool), -1), steps[len(data.pool) :]
    for row in test.reshape(len(test), -1):
        assert np.abs(pool - row).max(axis=1).min() > 1


def test_cifar_images_of_the_archive_have_the_planes_in_the_right_order(models: Path) -> None:
    batch = np.zeros((3, 3073), np.uint8)
    batch[:, 0] = (1, 2, 3)
    batch[1, 1 + 1024 + 33] = 200  # green, row 1, column 1
    file = zoo.cache("mlperf_ic") / "cifar-10-binary.tar.gz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz") as tar:
        for name in ("test_batch.bin", "data_batch_1.bin"):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = batch.nbytes
            tar.addfile(member, io.BytesIO(batch.tobytes()))
    data = zoo.dataset("mlperf_ic")
    assert data.test.x.shape == (3, 32, 32, 3)
    assert np.argwhere(data.test.x).tolist() == [[1, 1, 1, 1]]
    assert data.test.y.tolist() == [1, 2, 3]
    assert data.pool_y is not None
    assert data.pool_y.tolist() == [1, 2, 3]
