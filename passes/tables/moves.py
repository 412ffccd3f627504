"""Operators that only move, repeat or drop elements, found out by running them on element numbers."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import LAYOUT, constant_of, variable_inputs

CANDIDATES = LAYOUT | {
    "Concat",
    "DepthToSpace",
    "Expand",
    "Gather",
    "GatherElements",
    "GatherND",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Tile",
}
"""Operators worth asking; whether one moves elements is decided by its run."""
EXACT = 2**23
"""Element numbers must be exact in float32."""


def sample_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of one sample (without the batch axis), where it is known."""
    if value is None or value.shape is None or not len(value.shape):
        return None
    dims = list(value.shape)[1:]
    sizes = [d for d in dims if isinstance(d, int)]
    return tuple(sizes) if len(sizes) == len(dims) else None


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
        self._known: dict[object, np.ndarray | None] = {}

    def __call__(self, output: ir.Value | None) -> np.ndarray | None:
        """Element numbers of the producer's input, shaped as one sample of ``output``; None where it
        computes.

        The producer must treat every sample alike and apart from the others.
        """
        node = output.producer() if output is not None else None
        if node is None or node.domain != "" or node.op_type not in CANDIDATES:
            return None
        variable = variable_inputs(node)
        if len(variable) != 1 or len(node.outputs) != 1 or (shape := sample_shape(variable[0])) is None:
            return None
        constants = tuple(
            (c.shape, c.tobytes()) if (c := constant_of(v)) is not None else v is variable[0]
            for v in node.inputs
        )
        attributes = tuple(sorted(str(a) for a in node.attributes.values()))
        key = node.op_type, attributes, constants, shape
        if key not in self._known:
            self._known[key] = self._probe(node, variable[0], output, shape)
        return self._known[key]

    def _probe(
        self, node: ir.Node, source: ir.Value, output: ir.Value | None, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        count = math.prod(shape)
        if output is None or not 0 < count < EXACT:
            return None
        numbers = np.arange(2 * count, dtype=np.float32).reshape(2, *shape)
        # Numbers alone would take a Relu or a Round for a move.
        values = np.random.default_rng(0).normal(size=numbers.shape).astype(np.float32)
        try:
            found, moved = (
                runtime.run_nodes([node], {source: array}, [output], self.opset)[0]
                for array in (numbers, values)
            )
        except Exception:  # noqa: BLE001 - what cannot be run on two samples does not treat them alike
            return None
        if found.ndim < 1 or len(found) != 2 or not np.array_equal(found, np.rint(found)):
            return None
        places = found[0].astype(np.int64)
        if places.size and (places.min() < 0 or places.max() >= count):
            return None
        if not np.array_equal(found[1], found[0] + count):
            return None
        same = all(np.array_equal(m, v.ravel()[places]) for m, v in zip(moved, values, strict=True))
        return places if same else None
