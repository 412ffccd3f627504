"""The smallest programs that compute on ciphertexts: keys and samples take tenths of a second."""

from __future__ import annotations

import numpy as np

import onnx_fhe
from onnx_fhe.testing.integers import IntegerBuilder


def quick_program(samples: int = 10, **options) -> tuple[onnx_fhe.Program, dict[str, np.ndarray]]:
    """A dense layer and a table of three bits, and data for it.

    Args:
        samples: Samples of the data.
        options: For ``onnx_fhe.compile``.
    """
    b = IntegerBuilder(samples=samples)
    b.decrypt(b.activate(b.dense(b.encrypt("x", (3,), high=1), 2, 1), 2))
    model = b.model()
    program = onnx_fhe.compile(model, None, "analyze-bit-widths", p_error=1e-9, **options)
    data = np.random.default_rng(0).integers(0, 2, (samples, 3)).astype(np.float32)
    return program, {"x": data}
