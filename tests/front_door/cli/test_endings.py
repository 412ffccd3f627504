"""How commands end where the system gives too little, or ends them: a message, a status, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_fhe.cli import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="devices and limits of Linux")
COMMAND = [sys.executable, "-m", "onnx_fhe"]


def ended(arguments: list[str], **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    more = {"stdout": subprocess.PIPE, "timeout": 120, **more}
    return subprocess.run([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload, no-any-return]


def message(found: subprocess.CompletedProcess[str]) -> str:
    """The only message."""
    assert found.stderr.count("error: ") == 1
    assert "Traceback" not in found.stderr
    assert "defect" not in found.stderr
    return found.stderr


# Few bits: keys and circuits are small.
NARROW = "quantize{weights=3 activations=3 inputs=3},lower-to-integer,fuse-tlu,insert-rounding{bits=4}"


@dataclass(frozen=True)
class Compiled:
    """What one compilation, with a sample on ciphertexts, wrote."""

    data: Path
    out: Path
    scratch: Path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, zoo) -> Compiled:
    folder = tmp_path_factory.mktemp("compiled")
    model, data = written(zoo.mlp(), folder, zoo)
    found = Compiled(data, folder / "o.fhe", folder / "scratch")
    found.scratch.mkdir()
    arguments = ["compile", str(model), "--calibration", str(data), "-o", str(found.out), "-p", NARROW]
    done = ended(
        [*arguments, "--self-test", "1", "--p-error", "1e-3"],
        env={**os.environ, "TMPDIR": str(found.scratch)},
    )
    assert done.returncode == 0, done.stderr
    return found


# Standard output


@pytest.mark.parametrize(
    "arguments", [["passes"], ["--help"], ["--version"], ["passes", "quantize", "--json"]]
)
def test_a_full_standard_output_is_one_message(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        found = ended(arguments, stdout=full)
    assert found.returncode == 1
    assert "standard output cannot be written" in message(found)
    assert "No space left" in found.stderr


def test_a_reader_that_leaves_is_one_message() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    found = ended(["passes"], stdout=writing)
    os.close(writing)
    assert found.returncode == 1
    assert "standard output cannot be written" in message(found)


def test_a_closed_standard_output_is_one_message() -> None:
    found = subprocess.run(
        f"exec {sys.executable} -m onnx_fhe passes >&-", shell=True, stderr=subprocess.PIPE, text=True
    )
    assert found.returncode == 1
    assert "it is closed" in message(found)


def test_without_standard_error_the_status_is_the_same() -> None:
    command = f"exec {sys.executable} -m onnx_fhe inspect /nothing"
    for redirection in ("2>/dev/full", "2>&-", ">&- 2>&-"):
        assert subprocess.run(f"{command} {redirection}", shell=True).returncode == 1


def test_a_fault_after_concrete_has_run_is_one(compiled: Compiled) -> None:
    """Its runtime ends a process with 0 whatever happened, and takes a closed pipe for a crash."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["run", str(compiled.out), "--data", str(compiled.data), "--mode", "simulate", "--limit", "1"]
    found = ended(arguments, stdout=writing)
    os.close(writing)
    assert found.returncode == 1
    assert "standard output cannot be written" in message(found)


# Memory


def limited(arguments: list[str], megabytes: int) -> subprocess.CompletedProcess[str]:
    """Run a command in so much address space."""
    command = ["sh", "-c", f'ulimit -v {megabytes * 1024}; exec "$@"', "sh", *COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_too_little_memory_to_begin_is_one_message() -> None:
    found = limited(["passes"], 300)
    assert found.returncode == 1
    assert "not enough memory" in message(found)
    assert "300 MB" in found.stderr


def test_too_little_memory_on_the_way_is_one_message(tmp_path: Path, zoo) -> None:
    model, data = written(zoo.mlp(), tmp_path, zoo)
    # Concrete does not fit, all else does.
    megabytes = 500 + 45 * (os.cpu_count() or 1)
    arguments = ["compile", str(model), "--calibration", str(data), "-o", str(tmp_path / "o.fhe")]
    found = limited(arguments, megabytes)
    assert found.returncode == 1
    assert "not enough memory" in message(found)


def test_a_library_that_a_limit_keeps_out_is_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    error = Exception("libz3.so not found.")
    monkeypatch.setattr(memory, "limit", lambda: None)
    assert not memory.is_lack_of_memory(error)
    monkeypatch.setattr(memory, "limit", lambda: 600 * 2**20)
    assert memory.is_lack_of_memory(error)


# Temporary files


def written(proto: onnx.ModelProto, folder: Path, zoo) -> tuple[Path, Path]:
    """Files of a network and its data."""
    onnx.save(proto, folder / "model.onnx")
    np.savez(folder / "data.npz", **zoo.samples(proto))
    return folder / "model.onnx", folder / "data.npz"


@pytest.fixture
def compiling(tmp_path: Path, zoo):
    """A command that compiles, and where its temporary files go."""
    model, data = written(zoo.mlp(), tmp_path, zoo)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    arguments = ["compile", str(model), "--calibration", str(data), "-o", str(tmp_path / "out.fhe")]
    return arguments, {**os.environ, "TMPDIR": str(scratch)}, scratch


def test_a_compilation_leaves_no_folders(compiled: Compiled) -> None:
    assert list(compiled.scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_compilation_that_is_ended_leaves_no_folders(compiling, number: signal.Signals) -> None:
    arguments, environment, scratch = compiling
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    until(lambda: any(p.is_file() for p in scratch.rglob("*")), process)
    if number == signal.SIGKILL:  # as a system does that runs out of memory: the largest process goes
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), number)
    else:
        process.send_signal(number)
    assert process.wait(timeout=60) != 0
    assert list(scratch.iterdir()) == []


def until(happened, process: subprocess.Popen[bytes]) -> None:
    """Wait for something that a process does."""
    for _ in range(6000):
        if happened():
            return
        assert process.poll() is None, "it ended too early"
        time.sleep(0.01)
    pytest.fail("it takes too long")


SCRIPT = """
import sys, numpy as np, onnx_fhe
data = dict(np.load(sys.argv[2]))
program = onnx_fhe.compile(sys.argv[1], data, sys.argv[3], check_samples=0)
program.simulate(data, limit=1)
raise RuntimeError("an error of the caller")
"""


SIGNALLED = """
import os, signal, sys, time
import numpy as np
import onnx_fhe

program = onnx_fhe.Program.load(sys.argv[1])
program.simulate(dict(np.load(sys.argv[2])), limit=1)
reading, writing = os.pipe()
os.close(reading)
try:
    os.write(writing, b"to nobody")
except BrokenPipeError:
    print("pipe")
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_signals_stay_with_a_program_that_has_computed(compiled: Compiled) -> None:
    """Concrete's runtime has handlers that end the process, and takes them when it starts."""
    arguments = [sys.executable, "-W", "ignore", "-c", SIGNALLED, str(compiled.out), str(compiled.data)]
    found = subprocess.run(arguments, capture_output=True, text=True)
    assert found.stdout.split() == ["pipe", "interrupted"], found.stderr


def test_a_python_program_that_fails_says_so_and_leaves_no_folders(tmp_path: Path, zoo) -> None:
    model, data = written(zoo.mlp(), tmp_path, zoo)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(model), str(data), NARROW],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "an error of the caller" in found.stderr
    assert found.returncode == 1
    # What Concrete's optimizer keeps for later runs: tables of parameters.
    assert {p.name for p in scratch.iterdir()} <= {"optimizer"}


# Time


SLOW_IMPORT = """
import contextlib, sys, time
from onnx_fhe.cli import imports, supervisor
from onnx_fhe.cli.app import main

class Slow:
    def find_spec(self, name, *_):
        began = time.process_time()
        while name == "onnx_fhe.inspection" and time.process_time() - began < 2:
            pass

sys.meta_path.insert(0, Slow())
if sys.argv.pop(1) == "counted":
    imports.around = lambda *_: contextlib.nullcontext()
supervisor.READING_SECONDS, supervisor._SECONDS_OF_FIRST_MB = 1.5, 0.0
main()
"""


@pytest.mark.parametrize(("how", "status"), [("uncounted", 0), ("counted", 1)])
def test_imports_are_not_the_work_of_a_file(how: str, status: int, root: Path) -> None:
    model = str(root / "examples" / "digits_mlp.onnx")
    command = [sys.executable, "-c", SLOW_IMPORT, how, "inspect", model]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == status, found.stderr
    assert ("too long to read" in found.stderr) == bool(status)
