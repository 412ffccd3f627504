"""Watching over the first contact with a file: a crash, a hang or a full memory there becomes a refusal.

Code that reads models (onnx, onnxruntime) is native, and a file made for it can end the process, or keep it
busy for ever; no Python code in that process can do anything about it. So the command runs in a child,
which is forked before anything is imported and costs some milliseconds. While a file is read for the first
time, this process looks after the child's memory and processor time. Only Linux has what this takes; the
command runs without elsewhere.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import imports, memory, scratch, streams

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx_ir.passes import PassBase

    from ..passes.framework.instruments import Instrument

READING_SECONDS = 7.0
"""Processor time that reading a small file may take; large ones get more."""
READING_BYTES = 1400 * 2**20
"""Memory that reading a small file may take; large ones get more."""

_SECONDS_PER_MB = 1.0
"""Processor time more for each megabyte of the file past the first."""
_MEMORY_PER_FILE_BYTE = 12
"""Bytes of memory more for each byte of the file."""
# In a few bytes many nodes fit, so the first megabyte counts for more.
_SECONDS_OF_FIRST_MB = 20.0
_TICK_SECONDS = 0.03
"""Time between two looks at the child."""
_NATIVE = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP)
_LAYOUT = struct.Struct("<ddqH")
_BEGAN = struct.Struct("<d")
_KIND, _IMPORTING = -1, -2
"""Bytes of the page: why the child was ended, and whether it imports."""

_page: mmap.mmap | None = None


@contextlib.contextmanager
def contact(model: Path, others: Sequence[Path | None] = ()) -> Iterator[None]:
    """While inside, the process may take only as much time and memory as reading ``model`` can need.

    Args:
        model: The file, which messages name.
        others: Data that is read meanwhile.
    """
    with _naming(model):
        if _page is None:
            yield
        else:
            with _limited(_page, model, others):
                yield


@contextlib.contextmanager
def _naming(model: Path) -> Iterator[None]:
    """While inside, errors are given the name of the model's file, which passes do not know."""
    from ..ir.errors import ModelError, UnsupportedError

    try:
        yield
    except (ModelError, UnsupportedError) as error:
        raise error.located(file=str(model)) from error.__cause__


@contextlib.contextmanager
def _limited(page: mmap.mmap, model: Path, others: Sequence[Path | None]) -> Iterator[None]:
    size = _bytes_of(model)
    mega = size / 2**20
    seconds = READING_SECONDS + _SECONDS_OF_FIRST_MB * min(mega, 1) + _SECONDS_PER_MB * max(mega - 1, 0)
    most = READING_BYTES + _MEMORY_PER_FILE_BYTE * size + sum(map(_unpacked, others)) * 3
    name = os.fsencode(model)[: len(page) - _LAYOUT.size - 2]
    page[_LAYOUT.size : _LAYOUT.size + len(name)] = name
    page[: _LAYOUT.size] = _LAYOUT.pack(time.process_time(), seconds, most, len(name))
    try:
        with _without_imports(page):
            yield
    finally:
        end()


@contextlib.contextmanager
def _without_imports(page: mmap.mmap) -> Iterator[None]:
    """While inside, the time that imports take does not count, and nobody looks at the clock meanwhile."""
    started = 0.0

    def before() -> None:
        nonlocal started
        page[_IMPORTING] = 1
        started = time.process_time()

    def after() -> None:
        if began := _BEGAN.unpack_from(page)[0]:
            _BEGAN.pack_into(page, 0, began + time.process_time() - started)
        page[_IMPORTING] = 0

    with imports.around(before, after):
        yield


def end() -> None:
    """End the limits: the file has been read, and the command may take as long as it needs."""
    if _page is not None:
        _page[: _LAYOUT.size] = bytes(_LAYOUT.size)


def until_normalized() -> Instrument:
    """Ends the contact where passes begin that only see models that have run."""
    from ..passes.framework.instruments import Instrument
    from ..passes.framework.pipeline import pass_name

    class Known(Instrument):
        def before_pass(self, pass_: PassBase, model: ir.Model) -> None:  # noqa: ARG002
            if pass_name(pass_) != "normalize":
                end()

    return Known()


def fork() -> None:
    """Go on in a child process; this one waits for it, and exits as the child does or should have."""
    global _page
    if not hasattr(signal, "sigtimedwait") or not Path("/proc/self/statm").exists():
        return
    watched = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    page = mmap.mmap(-1, mmap.PAGESIZE)
    folder = scratch.make()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    parent = os.getpid()
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _die_with(parent)
        _page = page
        scratch.use(folder)
        return
    status, asked = _wait(child, watched, page)
    scratch.remove(folder)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if os.WIFEXITED(status):
        # Not sys.exit: this process has nothing to clean up, and its buffers are empty.
        os._exit(os.WEXITSTATUS(status))
    # Concrete's runtime takes signals for itself, and ends with others.
    os._exit(_ended(asked or os.WTERMSIG(status), page))


def _wait(child: int, watched: set[signal.Signals], page: mmap.mmap) -> tuple[int, int]:
    """Wait for the child, pass signals on, and end it when it goes past what it may take.

    Returns:
        Its status, and the last signal that asked it to end; 0 for none.
    """
    asked = 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, asked
        found = signal.sigtimedwait(watched, _TICK_SECONDS)
        if found is not None and found.si_signo != signal.SIGCHLD:
            asked = found.si_signo
            # Ctrl-C comes from the kernel, to the child too; another process sends to this one only.
            if found.si_pid or found.si_signo != signal.SIGINT:
                os.kill(child, found.si_signo)
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            # In this order: what the child imported since it was looked at counts neither here nor there.
            used, held = _usage(child)
            importing = page[_IMPORTING]
            began, seconds, most, _ = _LAYOUT.unpack_from(page)
            if not seconds:
                continue
            began = used if importing else began
            if used - began > seconds or held > most:
                kind = ord("T") if used - began > seconds else ord("M")
                page[_KIND] = kind
                os.kill(child, signal.SIGKILL)


def _usage(child: int) -> tuple[float, int]:
    """Processor seconds of the child so far, and the bytes of memory that it holds."""
    # The second field is the program's name in parentheses, which may hold anything.
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * mmap.PAGESIZE


def _ended(number: int, page: mmap.mmap) -> int:
    """Say what ended the child; returns the exit status."""
    from ..ir.errors import ModelError

    _, seconds, most, length = _LAYOUT.unpack_from(page)
    if number == signal.SIGINT:
        return 130
    if number in (signal.SIGTERM, signal.SIGHUP):
        return 128 + number
    file = os.fsdecode(bytes(page[_LAYOUT.size : _LAYOUT.size + length]))
    advice = "if the file is one of yours, export the model again; onnx-fhe's Python API has no such limit"
    if page[_KIND] == ord("T"):
        error = ModelError(
            "this model takes too long to read",
            found=f"more than {seconds:.0f} s of processor time",
            do=advice,
            file=file,
        )
    elif page[_KIND] == ord("M"):
        error = ModelError(
            "this model takes too much memory to read",
            found=f"more than {most / 2**30:.1f} GB",
            do=advice,
            file=file,
        )
    elif number in _NATIVE and memory.limit() is not None:
        # Native code that gets no memory ends the process.
        streams.say(f"error: {memory.message()}")
        return 1
    elif seconds:
        error = ModelError(
            "reading this model crashes onnx or onnxruntime",
            found=f"signal {signal.Signals(number).name}",
            do="check the model with onnx.checker and onnxruntime, and export it again",
            file=file,
        )
    else:
        killed = number == signal.SIGKILL
        reason = (
            "the process was killed, as systems do that run out of memory"
            if killed
            else "the process crashed"
        )
        streams.say(f"error: {reason} (signal {signal.Signals(number).name})")
        return 1 if killed else 3
    streams.say(f"error: {error}")
    return 1


def _die_with(parent: int) -> None:
    """Have the kernel end this process when ``parent`` ends: who kills the command means this process."""
    with contextlib.suppress(Exception):
        import ctypes

        set_parent_death_signal = 1
        libc: Any = ctypes.CDLL(None)
        libc.prctl(set_parent_death_signal, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def _bytes_of(model: Path) -> int:
    """Bytes of a model file and of the files beside it that are named after it, as external data is."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        total += model.stat().st_size
        total += sum(p.stat().st_size for p in model.parent.glob(f"{_literal(model.name)}?*") if p.is_file())
    return min(total, 4 * 2**30)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _unpacked(data: Path | None) -> int:
    """Bytes of an .npz once it is unpacked, as far as it says."""
    import zipfile

    if data is None or not data.is_file():
        return 0
    with contextlib.suppress(Exception), zipfile.ZipFile(data) as archive:
        return min(sum(e.file_size for e in archive.infolist()), 4 * 2**30)
    return 0
