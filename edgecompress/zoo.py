"""Models by name: models/<name>/model.py gives a model file and a data set.

`model.py` defines `model(folder) -> Path` and `dataset(folder) -> Dataset`, and may define
`REMOTE: tuple[Remote, ...]` (what `pull` fetches) and `train(folder, *, seed, progress)`. It may
import files beside it with `from . import mfcc`.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import http.client
import importlib
import os
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np

from edgecompress.artifact import Artifact
from edgecompress.data import NUMERIC, Dataset
from edgecompress.errors import ConfigError, EdgeCompressError, ToolError
from edgecompress.progress import Progress, silent
from edgecompress.usercode import explain, line_of, one_line
from edgecompress.vocabulary import METRICS

MODEL_FILE = "model.py"

_TIMEOUT_S = 30
_CHUNK = 1 << 16
_DOWNLOADS_AT_ONCE = 8
_LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Remote:
    """A file that `pull` fetches: its address, the SHA-256 (hex) of its bytes, its cache path."""

    url: str
    sha256: str
    file: str


def names() -> tuple[str, ...]:
    """The names of all models that can be found, sorted."""
    return tuple(sorted(_folders()))


def folder(name: str) -> Path:
    """The folder of model `name`; the first of EC_MODELS_DIR, ./models, the project's own wins.

    ConfigError lists the known names where there is none.
    """
    found = _folders()
    if name in found:
        return found[name]
    close = difflib.get_close_matches(name, found, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(
        f"model {name!r} is unknown; {hint}known: {', '.join(sorted(found)) or 'none'};"
        f" add a folder models/{name}/ with a {MODEL_FILE}, or name a model file"
    )


def describe(name: str) -> str:
    """The first line of the model.py's docstring, read without running it; empty for none."""
    file = folder(name) / MODEL_FILE
    try:
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{file}:{line_of(error, file)} {explain(error, file)}") from error
    return text.partition("\n")[0] if text else ""


def load(model: str | Path) -> Artifact:
    """The model of that name, or of that file where no model has the name (see loading.load)."""
    from edgecompress.loading import load as load_file

    return artifact(str(model)) if str(model) in names() else load_file(Path(model))


def artifact(name: str) -> Artifact:
    """Model `name` as its file holds it (loading.load gives the errors of the file itself)."""
    from edgecompress.loading import load as load_file

    return load_file(model_file(name), name=name)


def model_file(name: str) -> Path:
    """The file (or SavedModel folder) that `model()` of model `name` gives."""
    home, module = _module(name)
    file = _call(home, module, "model")(home)
    if not isinstance(file, Path):
        raise ConfigError(
            f"{home / MODEL_FILE}: model() gave {type(file).__name__}; give a pathlib.Path"
        )
    if not file.exists():
        raise ConfigError(
            f"{home / MODEL_FILE}: model() gave {file}, which does not exist; put the file there"
            f" or try `edgecompress pull {name}` or `edgecompress train {name}`"
        )
    return file


def dataset(name: str) -> Dataset:
    """The data set of model `name`, checked: types, shapes, finite values, labels in range."""
    home, module = _module(name)
    data = _call(home, module, "dataset")(home)
    where = f"{home / MODEL_FILE}: dataset()"
    if not isinstance(data, Dataset):
        raise ConfigError(f"{where} gave {type(data).__name__}; give an edgecompress Dataset")
    with one_line(home / MODEL_FILE):
        _check(where, data)
    return data


def cache(name: str) -> Path:
    """Where `pull` puts the files of model `name`: EC_CACHE_DIR, else the user's cache folder."""
    root = os.environ.get("EC_CACHE_DIR")
    if root:
        return Path(root) / name
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgecompress" / name


def data_file(path: str) -> Path | None:
    """`path` under EC_DATA_DIR where it exists there, else None; ConfigError where EC_DATA_DIR is
    set to something that is no folder."""
    root = os.environ.get("EC_DATA_DIR")
    if not root:
        return None
    if not Path(root).is_dir():
        raise ConfigError(f"EC_DATA_DIR={root} is no folder; correct it or unset it")
    file = Path(root, path)
    return file if file.exists() else None


def pulled(name: str, path: str, *, instead: tuple[str, ...]) -> Path:
    """`path` in the cache that `pull` fills for model `name`.

    Where it is missing, ConfigError names the command, and the files of EC_DATA_DIR that do
    `instead`.
    """
    file = cache(name) / path
    if not file.exists():
        raise ConfigError(
            f"{name}: {file} is missing; run `edgecompress pull {name}`, or set EC_DATA_DIR to a"
            f" folder with {', '.join(instead[:-1])} and {instead[-1]}"
        )
    return file


def pull(name: str, *, progress: Progress = silent) -> tuple[Path, ...]:
    """Fetch what the model's REMOTE lists into its cache and give the files.

    A file that is there with the right SHA-256 is not fetched again. ConfigError for a model
    without REMOTE or with an unsafe entry, ToolError where a download fails or has other bytes;
    then no part of that file is left.
    """
    home, module = _module(name)
    remotes = getattr(module, "REMOTE", ())
    if not isinstance(remotes, tuple):
        raise ConfigError(f"{home / MODEL_FILE}: REMOTE is {type(remotes).__name__}; give a tuple")
    if not remotes:
        raise ConfigError(f"{name}: nothing to pull; {home / MODEL_FILE} has no REMOTE")
    with one_line(home / MODEL_FILE):
        for remote in remotes:
            _check_remote(home / MODEL_FILE, remote)
    done, lock = 0, threading.Lock()

    def fetch(remote: Remote) -> Path:
        nonlocal done
        file = _fetch(remote, cache(name) / remote.file)
        with lock:
            done += 1
            progress(f"pull {name}", done, len(remotes))
        return file

    pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE)
    try:
        return tuple(pool.map(fetch, remotes))
    finally:
        pool.shutdown(cancel_futures=True)


def train(name: str, *, seed: int = 0, progress: Progress = silent) -> Path:
    """Train model `name` with its own `train()` and give the model file it made."""
    home, module = _module(name)
    if not hasattr(module, "train"):
        raise ConfigError(f"{name}: {home / MODEL_FILE} has no train(); there is nothing to train")
    _call(home, module, "train")(home, seed=seed, progress=progress)
    return model_file(name)


def _folders() -> dict[str, Path]:
    package = Path(__file__).parent
    own = [Path("models"), package.parent / "models", package / "models"]
    listed = [Path(p) for p in os.environ.get("EC_MODELS_DIR", "").split(os.pathsep) if p]
    found: dict[str, Path] = {}
    for root in (*listed, *own):
        for file in sorted(root.glob(f"*/{MODEL_FILE}")):
            found.setdefault(file.parent.name, file.parent.resolve())
    return found


def _module(name: str) -> tuple[Path, ModuleType]:
    """The folder and the loaded model.py of `name`, as a module of a private package."""
    home = folder(name)
    key = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    package = f"_edgecompress_model_{re.sub(r'[^0-9A-Za-z_]', '_', name)}_{key}"
    loaded = sys.modules.get(f"{package}.model")
    if loaded is not None:
        return home, loaded
    importlib.invalidate_caches()
    parent = ModuleType(package)
    parent.__path__ = [str(home)]
    sys.modules[package] = parent
    try:
        with one_line(home / MODEL_FILE):
            return home, importlib.import_module(f"{package}.model")
    except EdgeCompressError:
        for module in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
            del sys.modules[module]
        raise


def _call(home: Path, module: ModuleType, function: str) -> Callable[..., Any]:
    """`function` of the module, with its errors turned into one line each."""
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(
            f"{home / MODEL_FILE}: {function}() is missing; define {function}(folder)"
        )

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with one_line(home / MODEL_FILE):
            return found(*args, **kwargs)

    return guarded


def _check(where: str, data: Dataset) -> None:
    if data.metric not in METRICS:
        raise ConfigError(f"{where}: metric {data.metric!r}; use one of {', '.join(METRICS)}")
    _check_inputs(f"{where}: pool", data.pool, None)
    if data.pool_y is not None:
        _check_targets(f"{where}: pool", data.pool_y, len(data.pool), data)
    for split in (data.test, *data.extra):
        place = f"{where}: split {split.name!r}"
        _check_inputs(f"{place}: x", split.x, data.pool.shape[1:])
        if split.y is not None:
            _check_targets(place, split.y, len(split.x), data)
        elif data.metric != "mse":
            raise ConfigError(f"{place}: y is missing; {data.metric} needs one label per row")


def _check_targets(place: str, y: Any, rows: int, data: Dataset) -> None:
    if not isinstance(y, np.ndarray) or not y.ndim or y.dtype.kind not in NUMERIC:
        kind = f"{y.dtype} {y.shape}" if isinstance(y, np.ndarray) else type(y).__name__
        raise ConfigError(f"{place}: y is {kind}; give an array of numbers, one target per row")
    if len(y) != rows:
        raise ConfigError(f"{place}: {rows} rows of x but {len(y)} of y")
    if data.metric == "mse":
        if not np.isfinite(y).all():
            raise ConfigError(f"{place}: y holds NaN or infinite values; remove those rows")
        return
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ConfigError(f"{place}: y is {y.dtype} {y.shape}; give one integer label per row")
    most = 2 if data.metric == "auc" else len(data.labels) or int(y.max()) + 1
    if y.min() < 0 or y.max() >= most:
        raise ConfigError(
            f"{place}: y runs from {y.min()} to {y.max()}; labels are 0 to {most - 1}"
        )


def _check_inputs(place: str, x: Any, shape: tuple[int, ...] | None) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise ConfigError(f"{place} is {kind}; give a float32 array in the model's input domain")
    if x.ndim < 2 or not len(x):
        raise ConfigError(f"{place} has shape {x.shape}; give (rows, *input shape), at least 1 row")
    if shape is not None and x.shape[1:] != shape:
        raise ConfigError(f"{place} has rows of shape {x.shape[1:]}, the pool has {shape}")
    if not np.isfinite(x).all():
        raise ConfigError(f"{place} holds NaN or infinite values; remove those rows")


def _check_remote(file: Path, remote: Any) -> None:
    if not isinstance(remote, Remote):
        raise ConfigError(f"{file}: REMOTE holds {type(remote).__name__}; give zoo.Remote entries")
    url = urllib.parse.urlsplit(remote.url)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
        raise ConfigError(f"{file}: REMOTE {remote.url}: use an https address")
    if not re.fullmatch(r"[0-9a-f]{64}", remote.sha256):
        raise ConfigError(f"{file}: REMOTE {remote.url}: sha256 must be 64 lower-case hex digits")
    path = PurePosixPath(remote.file)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ConfigError(f"{file}: REMOTE {remote.url}: file {remote.file!r} leaves the cache")


def _fetch(remote: Remote, target: Path) -> Path:
    if target.is_file() and _sha256(target) == remote.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        digest = hashlib.sha256()
        with part.open("wb") as file:
            for chunk in _read(remote.url):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != remote.sha256:
            raise ToolError(
                f"{remote.url}: SHA-256 is {digest.hexdigest()}, expected {remote.sha256}; the file"
                " changed at its source or on the way, nothing was kept"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _read(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            while chunk := answer.read(_CHUNK):
                yield chunk
    except urllib.error.HTTPError as error:
        raise ToolError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ToolError(f"{url}: cannot be fetched ({reason}); check the network") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
