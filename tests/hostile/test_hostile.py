"""Every file of tests/hostile: one message, exit status 1, in bounded time and memory; never a traceback."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

HOSTILE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("hostile_corpus", HOSTILE / "corpus.py")
assert _spec is not None
assert _spec.loader is not None
corpus = importlib.util.module_from_spec(_spec)
sys.modules["hostile_corpus"] = corpus
_spec.loader.exec_module(corpus)

MEMORY = 2 * 1024**3
SECONDS = 10.0
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass
class Done:
    status: int
    out: str
    err: str
    seconds: float
    memory: int


@pytest.fixture(scope="module")
def command() -> Iterator[Callable[..., Done]]:
    """``command(folder, *arguments)``: the command line in a process of its own."""
    nursery = subprocess.Popen(
        [sys.executable, str(HOSTILE / "nursery.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None

    def run(folder: Path, *arguments: object) -> Done:
        out, err = folder / "out.txt", folder / "err.txt"
        request = {"arguments": [str(a) for a in arguments], "out": str(out), "err": str(err)}
        print(json.dumps(request), file=nursery.stdin, flush=True)
        answer = json.loads(nursery.stdout.readline())
        said = [path.read_text(errors="backslashreplace") for path in (out, err)]
        return Done(answer["status"], *said, answer["seconds"], answer["memory"])

    yield run
    nursery.stdin.close()
    nursery.wait(60)


def check(case: object, path: Path, done: Done) -> str:
    """What is wrong with how a file was treated; nothing if nothing is."""
    if "Traceback" in done.err or done.status not in (0, 1):
        return f"status {done.status}: {done.err[-400:]}"
    if CONTROL.search(done.out + done.err):
        return f"control characters: {(done.out + done.err)!r:.300}"
    if done.status == 1 and (
        not done.err.startswith("error: ") or len(re.findall("^error:", done.err, re.M)) != 1
    ):
        return f"not one message: {done.err[:400]!r}"
    if done.status == 1 and str(path)[:200] not in done.err:
        return f"the file is not named: {done.err[:400]!r}"
    if done.seconds > SECONDS or done.memory > MEMORY:
        return f"{done.seconds:.1f} s, {done.memory / 2**20:.0f} MB"
    return ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("name", list(corpus.MADE))
def test_a_hostile_file_is_refused(name, command, tmp_path):
    case = corpus.MADE[name]
    folder = tmp_path / name
    folder.mkdir()
    made = case.make(folder)
    path = made if isinstance(made, Path) else corpus.put(made, folder)
    done = command(tmp_path, "inspect", path)
    assert check(case, path, done) == ""
    if os.environ.get("SHOW"):
        print(name, done)
    if done.status == 0:
        calibration = tmp_path / "calibration.npz"
        np.savez(calibration, x=np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
        out = tmp_path / "out.fhe"
        made = command(
            tmp_path, "compile", path, "--calibration", calibration, "--backend", "reference", "-o", out
        )
        assert check(case, path, made) == "" or "calibration" in made.err
        assert case.fine or made.status == 1
    assert {p.name for p in tmp_path.iterdir()} <= {name, "out.txt", "err.txt", "calibration.npz", "out.fhe"}
