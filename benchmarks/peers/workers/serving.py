"""One side of the comparison as a process: it reads requests and writes answers, one JSON object a line.

It runs with either side's packages, so it imports nothing but the standard library and numpy.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

BATCH = 20


class Worker(ABC):
    """What either side is asked. Labels never come here: the asker scores the classes.

    Answers are plain JSON. Data are .npz files with one array for each input, samples on axis 0.
    """

    requests: ClassVar[tuple[str, ...]] = (
        "hello",
        "load",
        "compile",
        "classes",
        "keygen",
        "evaluate",
        "memory",
    )

    def __init__(self) -> None:
        self.inputs: list[str] = []

    @abstractmethod
    def hello(self) -> dict[str, Any]:
        """Versions of what computes."""

    @abstractmethod
    def load(self, model: str, calibration: str) -> dict[str, Any]:
        """Read model and calibration inputs; set ``inputs``; say what had to be done to the model."""

    @abstractmethod
    def make(self, **setting: Any) -> dict[str, Any]:
        """Compile; return what is known of the circuit."""

    @abstractmethod
    def outputs(self, samples: tuple[np.ndarray, ...], mode: str) -> np.ndarray:
        """Class scores in the clear (``clear``), or with the errors of encryption (``simulate``)."""

    @abstractmethod
    def make_keys(self) -> None:
        """Make fresh keys."""

    @abstractmethod
    def key_bytes(self) -> int:
        """Bytes of the evaluation keys, as they are sent to a server."""

    @abstractmethod
    def encrypted(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """Encrypt one sample, evaluate what comes of it, decrypt what comes of that to class scores."""

    def compile(self, **setting: Any) -> dict[str, Any]:
        """``make``, timed."""
        began = time.perf_counter()
        found = self.make(**setting)
        return {"compile_seconds": time.perf_counter() - began, **found}

    def classes(self, data: str, mode: str, start: int = 0, stop: int = sys.maxsize) -> dict[str, Any]:
        """The class of each sample from ``start`` to ``stop``, and the seconds of one sample."""
        arrays = self._samples(data, start, stop)
        count = len(arrays[0])
        began = time.perf_counter()
        found = [
            self.outputs(tuple(a[i : i + BATCH] for a in arrays), mode).reshape(min(BATCH, count - i), -1)
            for i in range(0, count, BATCH)
        ]
        seconds = (time.perf_counter() - began) / max(1, count)
        return {"classes": [int(c) for f in found for c in f.argmax(axis=1)], "seconds": seconds}

    def keygen(self) -> dict[str, Any]:
        """Make keys."""
        began = time.perf_counter()
        self.make_keys()
        return {"keygen_seconds": time.perf_counter() - began, "key_bytes": self.key_bytes()}

    def evaluate(self, data: str, index: int) -> dict[str, Any]:
        """Compute one sample on ciphertexts: seconds on the wall, processor seconds, and its class."""
        encrypt, evaluate, decrypt = self.encrypted()
        sample = self._samples(data, index, index + 1)
        times = [time.perf_counter()]
        sent = encrypt(*sample)
        times.append(time.perf_counter())
        processor = time.process_time()
        received = evaluate(sent)
        processor = time.process_time() - processor
        times.append(time.perf_counter())
        scores = decrypt(received)
        times.append(time.perf_counter())
        each = [b - a for a, b in pairwise(times)]
        return {
            "encrypt_seconds": each[0],
            "seconds": each[1],
            "processor_seconds": processor,
            "decrypt_seconds": each[2],
            "class": int(np.asarray(scores).reshape(-1).argmax()),
        }

    def memory(self) -> dict[str, Any]:
        """The most memory that this process has held."""
        unit = 1 if sys.platform == "darwin" else 1024
        return {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}

    def _samples(self, data: str, start: int, stop: int) -> tuple[np.ndarray, ...]:
        with np.load(data) as arrays:
            return tuple(arrays[name][start:stop] for name in self.inputs)


def serve(make: Callable[[], Worker]) -> None:
    """Answer requests until the input ends.

    A request is ``{"do": NAME, ...}``, an answer ``{"ok": ...}`` or ``{"error": WHY}``.
    """
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print must not stand among the answers.
    os.dup2(2, 1)
    worker = make()
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("do")
        try:
            if name not in worker.requests:
                raise ValueError("no such request: " + name)
            answer = {"ok": getattr(worker, name)(**request)}
        except Exception as error:  # noqa: BLE001 - a setting that fails is a result; the asker decides
            answer = {"error": f"{type(error).__name__}: {_brief(str(error))}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _brief(message: str) -> str:
    """A message in one line, without the graph and the places that Concrete prints in between."""
    lines = [line.strip() for line in message.splitlines()]
    told = [line.strip("^ ") for line in lines if not line.startswith(("%", "return", "Subgraphs", "/"))]
    return " ".join(" ".join(told).split())
