"""Operators that move elements, as passes on tables ask for them: by output, one source, no constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....ir.graph import constant_of
from ....ir.movement import Movements, sample_shape

__all__ = ["Moves", "arithmetic_input", "sample_shape"]


def arithmetic_input(node: ir.Node) -> ir.Value | None:
    """The operand of a sum, a difference or a product with a constant, or of a Neg; else None."""
    if node.domain != "" or node.op_type not in {"Add", "Sub", "Mul", "Neg"}:
        return None
    variable = [v for v in node.inputs if v is not None and constant_of(v) is None]
    if len(variable) != 1 or sample_shape(variable[0]) != sample_shape(node.outputs[0]):
        return None
    constants = [c for v in node.inputs if (c := constant_of(v)) is not None]
    rank = len(variable[0].shape or ())
    # A constant with a batch axis of its own would tell samples apart.
    whole = all(c.ndim < rank or (c.ndim == rank and c.shape[0] == 1) for c in constants)
    return variable[0] if whole and sample_shape(variable[0]) is not None else None


class Moves:
    """Answers which element of the input each element of an output is.

    Args:
        opset: ai.onnx opset of the model.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._movements = Movements(opset)

    def __call__(self, output: ir.Value | None) -> np.ndarray | None:
        """Element numbers of the producer's input, shaped as one sample of ``output``.

        None where the producer computes, reads several encrypted tensors, or puts constants in between.
        """
        found = self._movements(output.producer() if output is not None else None)
        if found is None or len(found.sources) != 1 or found.filled.any():
            return None
        return found.places
