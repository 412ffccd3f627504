"""What runs in a worker: it takes calls from a pipe, one after the other, and sends what came of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..ir.errors import ArtifactError, DataError, OnnxFheError
from ..sides.ciphertexts import Call
from ..sides.keys import EvaluationKeys
from ..sides.server import Server, compute
from .key_memory import KeyMemory

Kind = str
DONE, UNFIT, LOST_KEYS, DEFECT = "done", "unfit", "lost-keys", "defect"
"""What came of a call: results; inputs or keys that do not fit; keys that are gone; a fault of ours."""


@dataclass(frozen=True)
class Task:
    """What a worker is asked; see ``units.Unit``."""

    model: str
    circuit: str
    keys: str
    path: Path
    call: Call


@dataclass(frozen=True)
class Answer:
    """What a worker says.

    Attributes:
        kind: What came of the call.
        call: The results.
        told: What is wrong: what, found, allowed, do.
        loaded: Identities of the keys that the worker has.
    """

    kind: Kind
    call: Call = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()


def work(pipe: Connection, models: Mapping[str, Path], key_bytes: int, alone: bool) -> None:
    """The whole life of a worker.

    Args:
        pipe: Tasks come through it; first the worker says that it is ready, and with which circuits.
        models: Server halves by name.
        key_bytes: Bytes of memory for keys.
        alone: Whether there are other workers, so that this one computes on one core.
    """
    # Ctrl-C reaches all processes of a terminal; what runs may end, and the service ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    servers = {name: Server.load(path) for name, path in models.items()}
    circuits: dict[tuple[str, str], int] = {}
    for name, server in servers.items():
        server.prepare(alone=alone)
        circuits |= {(name, entry.id): entry.batch for entry in server.header.circuits}
    memory = KeyMemory(key_bytes)
    pipe.send(circuits)
    _silence()
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return  # the service is gone
        answer = _answer(task, servers, circuits, memory, alone)
        pipe.send(Answer(answer.kind, answer.call, answer.told, memory.ids))


def _silence() -> None:
    """What native code prints of every damaged ciphertext shall not fill the log."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _answer(
    task: Task,
    servers: Mapping[str, Server],
    circuits: Mapping[tuple[str, str], int],
    memory: KeyMemory,
    alone: bool,
) -> Answer:
    side = servers[task.model].side(circuits[task.model, task.circuit])

    def read() -> tuple[Any, int]:
        content = EvaluationKeys.load(task.path)
        if content.id != task.keys:
            raise ArtifactError("these are other keys")
        return side.parse_keys(content.content), len(content.content)

    try:
        keys = memory.get(task.keys, read)
    except ArtifactError:
        return Answer(LOST_KEYS)
    except DataError as error:
        return _unfit(error)
    return answered(lambda: compute(side, keys, task.call, alone=alone))


def answered(computed: Callable[[], Call]) -> Answer:
    """What came of a call, whatever it is.

    Args:
        computed: Computes the results.
    """
    try:
        return Answer(DONE, computed())
    except OnnxFheError as error:
        return _unfit(error)
    except (RuntimeError, ValueError, TypeError) as error:
        # What Concrete says of keys and ciphertexts that are well formed and do not fit.
        return _unfit(
            DataError("the circuit cannot compute on these inputs with these keys", found=_line(error))
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the worker goes on, and the log says what it was
        return Answer(DEFECT, told={"what": f"{type(error).__name__}: {_line(error)}"})


def _unfit(error: OnnxFheError) -> Answer:
    told = {"what": error.what, "found": error.found, "allowed": error.allowed, "do": error.do}
    return Answer(UNFIT, told=told)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
