"""onnx-fhe as a process (``serving``), asked the same as the peer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np
from serving import Worker, serve

import onnx_fhe
from onnx_fhe.backends.concrete.probe import Probe, Running
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.runtime import Session
from onnx_fhe.machine import Profile, predict
from onnx_fhe.prologue import Prologue

PACKAGES = ("onnx-fhe", "concrete-python", "torch", "onnx", "onnxruntime", "numpy")
CHEAPEST = Probe(bits=2, precision=1.0, p_error=1e-2, count=64)
"""What nothing with lookups can be cheaper than: 2 bits, nothing asked of the result, the largest error."""


class OnnxFhe(Worker):
    """A preset, a pipeline, or an artifact."""

    requests: ClassVar[tuple[str, ...]] = (*Worker.requests, "bootstrap")

    def hello(self) -> dict[str, Any]:
        """Versions of what computes."""
        return {"packages": {p: version(p) for p in PACKAGES}}

    def load(self, model: str, calibration: str) -> dict[str, Any]:
        """Read the model."""
        self._file = model
        self._float = onnx_fhe.load(model)
        self._calibration = calibration_for(self._float, read_npz(calibration))
        self.inputs = list(self._calibration)
        return {}

    def make(
        self, pipeline: str | None = None, artifact: str | None = None, cores: int = 1
    ) -> dict[str, Any]:
        """Compile a pipeline, or load an artifact, which must be of this very model.

        Raises:
            ValueError: It is of another one.
        """
        began = time.perf_counter()
        if artifact is not None:
            self._program = onnx_fhe.Program.load(artifact)
            sha = hashlib.sha256(Path(self._file).read_bytes()).hexdigest()
            if self._program.manifest.source.sha256 != sha:
                raise ValueError(f"{artifact} was compiled from another model than {self._file}")
        else:
            self._program = onnx_fhe.compile(self._file, self._calibration, pipeline or "balanced")
        costs, manifest = self._program.statistics, self._program.manifest
        return {
            # An artifact is loaded: what compiling it took is not known here.
            "compile_seconds": None if artifact is not None else time.perf_counter() - began,
            "bootstraps": costs.programmable_bootstraps,
            "complexity": costs.complexity,
            "accumulator_bits": costs.max_accumulator_bits,
            "table_bits": costs.max_table_bits,
            "p_error": manifest.p_error,
            "pipeline": manifest.pipeline,
            "predicted_seconds": predict(costs, Profile.here(), cores=cores).seconds,
            "prediction": Profile.here().describe(),
        }

    def outputs(self, samples: tuple[np.ndarray, ...], mode: str) -> np.ndarray:
        """The float model (``float``), the integer model, or Concrete's simulation."""
        data = dict(zip(self.inputs, samples, strict=True))
        if mode == "float":
            found = Session(self._float).run_batched(data)
        else:
            found = self._program.run(data, "simulate" if mode == "simulate" else "clear").outputs
        return np.asarray(next(iter(found.values())))

    def make_keys(self) -> None:
        """Make fresh keys."""
        self._session = self._program.circuit.session()
        self._session.keygen()

    def key_bytes(self) -> int:
        """Of the keys as they are sent."""
        return len(self._session.evaluation_keys())

    def encrypted(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """The steps of ``Program.encrypted``, the client's part of the network among them."""
        prologue, epilogue = Prologue(self._program.parts), Session(self._program.parts.epilogue)

        def encrypt(*sample: np.ndarray) -> Any:
            self._sample = dict(zip(self.inputs, sample, strict=True))
            return self._session.encrypt(prologue.run(self._sample)[0])

        def decrypt(received: Any) -> Any:
            integers = self._session.decrypt(received)
            given = {**self._sample, **{k: v.astype(np.float32) for k, v in integers.items()}}
            found = epilogue.run_batched({k: given[k] for k in epilogue.inputs})
            return next(iter(found.values()))

        return encrypt, self._session.evaluate, decrypt

    def bootstrap(self, repeats: int = 5) -> dict[str, Any]:
        """Milliseconds of the cheapest 2-bit lookup, on one core: processor time, the median of runs."""
        found = [Running(CHEAPEST).times(1) for _ in range(repeats)]
        return {
            "milliseconds": median(t.milliseconds for t in found),
            "complexity": found[0].complexity,
            "p_error": CHEAPEST.p_error,
            "bits": CHEAPEST.bits,
        }


if __name__ == "__main__":
    serve(OnnxFhe)
