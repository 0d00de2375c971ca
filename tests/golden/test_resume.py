"""A training, or a command of several stages, that is killed at any moment goes on from its
checkpoints, to the same weights and files.

A process that has imported TensorFlow forks one that trains for every life: a kill is a SIGKILL at
a random moment after its first step (of a command: after its start), so during steps, validations
and writes of checkpoints alike.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress import cli, npz
from edgecompress.artifact import Artifact
from edgecompress.data import Dataset, Rows, Split, Training
from edgecompress.recipe import Finetune, Train
from edgecompress.training.checkpoint import Checkpoints
from edgecompress.training.finetune import finetune
from tests.conftest import nightly

KILLS = 10
STAGES = """
[prune]
ratio = 0.25
rounds = 2
epochs = 2

[finetune]

[sparsify]
sparsity = 0.5

[cluster]
clusters = 8

[qat]

[train]
epochs = 4
batch = 16
learning_rate = 0.01
"""
TRAIN = Train(epochs=40, batch=16, learning_rate=0.01)


def small() -> Artifact:
    """Dense layers, BatchNormalization and dropout: all that has a state in training."""
    import keras

    k = keras.layers
    start = [keras.initializers.GlorotUniform(seed=seed) for seed in (1, 2)]
    source = keras.Input((6,), name="x")
    x = k.Dense(24, kernel_initializer=start[0], name="hidden")(source)
    x = k.ReLU(name="relu")(k.BatchNormalization(name="norm")(x))
    x = k.Dropout(0.3, name="drop")(x)
    head = k.Dense(3, activation="softmax", kernel_initializer=start[1], name="head")
    return Artifact("small", keras=keras.Model(source, head(x), name="small"))


def dataset() -> Dataset:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(120, 6)).astype(np.float32)
    y = (x[:, :3] + rng.normal(0, 0.7, (120, 3))).argmax(axis=1)
    held = Split("validation", x[:56], y[:56])
    training = Training(Rows(x[56:], y[56:]), held, lambda x, y, rng: x + rng.normal(0, 0.1, 6))
    return Dataset("points", "top1", x[:9], held, training=lambda: training)


def live(folder: Path, mark: Path, interrupt_at: int | None) -> None:
    """One life of a training: `mark` is there once it makes steps, or has none left to make; its
    weights at the end."""

    def told(label: str, done: int, total: int) -> None:
        if done == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        if (done % 4 == 1 or done == total) and not mark.exists():
            mark.touch()

    tuned = finetune(
        small(),
        data=dataset(),
        options=Finetune(),
        train=TRAIN,
        seed=3,
        checkpoints=Checkpoints(folder),
        progress=told,
    )
    (training,) = (step.effect["training"] for step in tuned.steps)
    weights = {f"w{i}": w for i, w in enumerate(tuned.need_keras("test").get_weights())}
    np.savez(folder.parent / "weights.npz", **weights)
    (folder.parent / "done.json").write_text(json.dumps(training))


def command(folder: Path, mark: Path, interrupt_at: int | None) -> None:
    """One life of a command of all stages that train; `mark` is there from its start."""
    assert interrupt_at is None
    model, data, recipe = (folder.parents[1] / name for name in INPUTS)
    os.dup2(2, 1)  # stdout is for process ids
    mark.touch()
    options = ["--data", str(data), "--recipe", str(recipe), "--out", str(folder)]
    os._exit(cli.main(["compress", str(model), *options]))


LIVES = {"live": live, "command": command}
INPUTS = ("small.keras", "points.npz", "recipe.toml")
"""Files of a command."""


def serve() -> None:
    """Fork a life for each line `[kind, folder, mark, interrupt_at]` and say its process id; after
    one more line, say how it ended: until then its id belongs to nobody else."""
    import keras
    import tf_keras

    assert keras and tf_keras
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
    while line := sys.stdin.readline():
        kind, folder, mark, interrupt_at = json.loads(line)
        child = os.fork()
        if not child:
            try:
                LIVES[kind](Path(folder), Path(mark), interrupt_at)
            except KeyboardInterrupt:
                os._exit(130)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Server:
    """The process that forks, and the lives it started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lives = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"},
            text=True,
        )

    def live(
        self,
        name: str,
        *,
        kind: str = "live",
        kill_after: float | None = None,
        interrupt_at: int | None = None,
    ) -> tuple[int, float]:
        """The exit status of a life (-9: killed) and the seconds from its first step to its end;
        `kill_after` are seconds from there too."""
        self.lives += 1
        mark = self.folder / f"mark{self.lives}"
        order = [kind, str(self.folder / name / "checkpoints"), str(mark), interrupt_at]
        self.say(json.dumps(order))
        child = int(self.hear())
        latest = time.monotonic() + 120
        while not mark.exists():
            assert time.monotonic() < latest, "the training makes no step"
            time.sleep(0.001)
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        self.say("ended?")
        return int(self.hear()), time.monotonic() - began

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process that forks has ended"
        return line

    def close(self) -> None:
        assert self.process.stdin is not None
        with self.process:
            self.process.stdin.close()


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return json.loads((folder / "done.json").read_text()), npz.read(folder / "weights.npz")


def check_same(folder: Path, other: Path) -> None:
    """To the last bit: on a processor these layers are computed in one order."""
    (one, weights), (two, others) = outcome(folder), outcome(other)
    assert one == two
    assert all(np.array_equal(weights[name], others[name]) for name in weights)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Server(tmp_path_factory.mktemp("resume"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(server: Server) -> tuple[Path, float]:
    """The folder of a training that nothing happens to, and its seconds."""
    status, seconds = server.live("whole")
    assert status == 0
    done, _ = outcome(server.folder / "whole")
    assert done["epochs"] == TRAIN.epochs
    assert 0 < done["best_epoch"] < TRAIN.epochs
    return server.folder / "whole", seconds


def test_a_killed_training_ends_as_if_nothing_had_happened(
    server: Server, whole: tuple[Path, float]
) -> None:
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    chains, kills, epochs = 0, 0, []
    while True:
        folder = server.folder / f"chain{chains}"
        late = rng.uniform(0, whole[1] / 4) if kills < KILLS else None
        status, _ = server.live(folder.name, kill_after=late)
        left = sorted((folder / "checkpoints").glob("[!.]*"))
        assert [path.name for path in left] in ([], ["finetune.npz"])
        for path in left:  # whole
            notes = json.loads(npz.read(path)["notes"].tobytes())
            epochs.append(len(notes["losses"]))
        if status == 0:
            check_same(folder, whole[0])
            assert [path.name for path in (folder / "checkpoints").iterdir()] == ["finetune.npz"]
            chains += 1
        else:
            assert status == -signal.SIGKILL
            kills += 1
        if kills == KILLS and status == 0:
            break
    assert len(set(epochs)) > 2  # it did go on


def test_a_killed_command_ends_as_if_nothing_had_happened(server: Server) -> None:
    """In any stage, or while it converts and writes: every file there is whole, and stages that
    were done are not repeated."""
    small().need_keras("test").save(server.folder / INPUTS[0])
    data = dataset()
    rows, held = data.to_train("test").rows, data.test
    assert isinstance(rows, Rows) and rows.y is not None and held.y is not None
    np.savez(server.folder / INPUTS[1], x_train=rows.x, y_train=rows.y, x=held.x, y=held.y)
    (server.folder / INPUTS[2]).write_text(STAGES)
    status, seconds = server.live("command", kind="command")
    assert status == 0
    expected = files(server.folder / "command" / "checkpoints")
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    chains, kills, resumed, done = 0, 0, False, dict[str, int]()
    while True:
        name = f"killed{chains}"
        run = server.folder / name / "checkpoints"
        going = kills >= nightly(3, KILLS) and resumed
        late = None if going else rng.uniform(0, seconds / 2)
        status, _ = server.live(name, kind="command", kill_after=late)
        assert done.items() <= trained(run).items()
        resumed, done = resumed or bool(done), trained(run)
        if status == 0:
            assert files(run) == expected
            chains, done = chains + 1, {}
        else:
            assert status == -signal.SIGKILL
            assert files(run).items() <= expected.items()
            kills += 1
        if going:
            break
    assert status == 0


def files(folder: Path) -> dict[str, bytes]:
    """What a run directory holds, but for checkpoints and what was being written."""
    found = (path for path in folder.rglob("[!.]*") if path.is_file())
    names = {path.relative_to(folder): path for path in found}
    return {str(k): v.read_bytes() for k, v in names.items() if k.parts[0] != "checkpoints"}


def trained(folder: Path) -> dict[str, int]:
    """The checkpoints in a run directory of stages that are done, and when each was written."""
    found = list(folder.glob("checkpoints/**/[!.]*.npz"))
    done = [path for path in found if json.loads(npz.read(path)["notes"].tobytes())["done"]]
    return {str(path): path.stat().st_mtime_ns for path in done}


def test_an_interrupt_keeps_what_there_is(server: Server, whole: tuple[Path, float]) -> None:
    folder = server.folder / "interrupted"
    status, _ = server.live("interrupted", interrupt_at=30)
    assert status == 130
    kept = npz.read(folder / "checkpoints" / "finetune.npz")
    assert len(json.loads(kept["notes"].tobytes())["losses"]) == 7  # 4 steps each
    assert server.live("interrupted")[0] == 0
    check_same(folder, whole[0])


def test_a_finished_training_is_only_read(server: Server, whole: tuple[Path, float]) -> None:
    told = []
    tuned = finetune(
        small(),
        data=dataset(),
        train=TRAIN,
        seed=3,
        checkpoints=Checkpoints(whole[0] / "checkpoints"),
        progress=lambda *now: told.append(now),
    )
    assert told == [("finetune", 160, 160)]
    done, weights = outcome(whole[0])
    assert tuned.steps[0].effect["training"] == done
    found = tuned.need_keras("test").get_weights()
    assert all(np.array_equal(weights[f"w{i}"], w) for i, w in enumerate(found))


def test_what_was_interrupted_may_be_finished_as_it_stands(server: Server) -> None:
    """With the best weights so far; what was not begun is trained."""
    folder = server.folder / "stopped" / "checkpoints"
    assert server.live("stopped", interrupt_at=50)[0] == 130
    short = Train(epochs=2, batch=16)
    for train, epochs, steps in ((TRAIN, 12, 1), (short, 2, 9)):
        told = []
        tuned = finetune(
            small(),
            data=dataset(),
            train=train,
            seed=3,
            checkpoints=Checkpoints(folder, finish=True),
            progress=lambda *now, told=told: told.append(now),
        )
        assert len(told) == steps
        assert tuned.steps[0].effect["training"]["epochs"] == epochs


def test_another_training_starts_anew(tmp_path: Path) -> None:
    """Of other weights, rows or options, another seed or teacher; not of a teacher that was loaded
    again, with another state of its dropout."""
    short, data = Train(epochs=2, batch=16), dataset()

    def run(
        artifact: Artifact,
        data: Dataset = data,
        train: Train = short,
        seed: int = 0,
        teacher: Artifact | None = None,
    ) -> int:
        """How often the training told of its progress: once where it is only read."""
        told: list[int] = []
        finetune(
            artifact,
            data=data,
            train=train,
            teacher=None if teacher is None else teacher.keras,
            seed=seed,
            checkpoints=Checkpoints(tmp_path),
            progress=lambda label, done, total: told.append(done),
        )
        return len(told)

    training, moved = data.to_train("test"), small()
    moved.need_keras("test").get_layer("head").bias.assign([0.1, 0.0, 0.0])
    assert isinstance(training.rows, Rows)
    rows = training.rows
    fewer = Training(Rows(rows.x[:-1], rows.y[:-1]), training.validation)  # type: ignore[index]
    mended = rows.y.copy()  # type: ignore[union-attr]
    mended[-1] = (mended[-1] + 1) % 3
    other = Training(Rows(rows.x, mended), training.validation)
    louder = replace(training, augment=lambda x, y, rng: x + rng.normal(0, 0.2, 6))
    assert run(small()) == 9
    assert run(small()) == 1
    assert run(small(), train=Train(epochs=2, batch=16, learning_rate=0.002)) == 9
    for changed in (fewer, other, louder):
        assert run(small(), data=replace(data, training=lambda made=changed: made)) == 9
    assert run(moved) == 9
    assert run(moved, seed=1) == 9
    assert run(moved, seed=1) == 1
    taught = Train(epochs=2, batch=16, teacher=0.5)
    assert run(small(), train=taught, teacher=small()) == 9
    assert run(small(), train=taught, teacher=small()) == 1
    assert run(small(), train=taught, teacher=moved) == 9


if __name__ == "__main__":
    serve()
