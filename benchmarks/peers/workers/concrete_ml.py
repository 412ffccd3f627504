"""Concrete ML as a process (``serving``). It runs in an environment of its own, without onnx-fhe."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from concrete.ml.torch.compile import compile_onnx_model
from onnx import version_converter
from serving import Worker, serve

OPSET = 14
PACKAGES = ("concrete-ml", "concrete-python", "torch", "onnx", "onnxruntime", "numpy")


class ConcreteML(Worker):
    """What a user of Concrete ML writes, with its names for things."""

    def hello(self) -> dict[str, Any]:
        """Versions of what computes."""
        return {"packages": {p: version(p) for p in PACKAGES}}

    def load(self, model: str, calibration: str) -> dict[str, Any]:
        """Read the model, as opset 14: it takes no other."""
        self._model = onnx.load(model)
        was = next(o.version for o in self._model.opset_import if o.domain in ("", "ai.onnx"))
        if was != OPSET:
            self._model = version_converter.convert_version(self._model, OPSET)
        weights = {i.name for i in self._model.graph.initializer}
        self.inputs = [i.name for i in self._model.graph.input if i.name not in weights]
        with np.load(calibration) as arrays:
            self._calibration = tuple(arrays[name] for name in self.inputs)
        return {"opset": was, "converted_to": OPSET if was != OPSET else None}

    def make(self, n_bits: int, rounding: int | None = None, p_error: float | None = None) -> dict[str, Any]:
        """Quantize and compile."""
        self._module = compile_onnx_model(
            self._model,
            self._calibration if len(self._calibration) > 1 else self._calibration[0],
            n_bits=n_bits,
            rounding_threshold_bits=rounding and {"n_bits": rounding, "method": "approximate"},
            p_error=p_error,
        )
        circuit = self._module.fhe_circuit
        return {
            "bootstraps": circuit.programmable_bootstrap_count,
            "complexity": circuit.complexity,
            "accumulator_bits": circuit.graph.maximum_integer_bit_width(),
            "p_error": circuit.p_error,
        }

    def outputs(self, samples: tuple[np.ndarray, ...], mode: str) -> np.ndarray:
        """Its own simulation, or its quantized model in the clear."""
        found = self._module.forward(*samples, fhe="simulate" if mode == "simulate" else "disable")
        return np.asarray(found[0] if isinstance(found, tuple) else found)

    def make_keys(self) -> None:
        """Make fresh keys."""
        self._module.fhe_circuit.keygen(force=True)

    def key_bytes(self) -> int:
        """Of its compressed keys, which are its default."""
        return len(self._module.fhe_circuit.client.evaluation_keys.serialize())

    def encrypted(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """The steps of ``forward(fhe="execute")``."""
        module, circuit = self._module, self._module.fhe_circuit

        def decrypt(received: Any) -> Any:
            found = module.dequantize_output(circuit.decrypt(received))
            return found[0] if isinstance(found, tuple) else found

        def encrypt(*sample: np.ndarray) -> Any:
            quantized = module.quantize_input(*sample)
            return circuit.encrypt(*(quantized if isinstance(quantized, tuple) else (quantized,)))

        def evaluate(sent: Any) -> Any:
            return circuit.run(*(sent if isinstance(sent, tuple) else (sent,)))

        return encrypt, evaluate, decrypt


if __name__ == "__main__":
    serve(ConcreteML)
