"""Whatever is affine in its one tensor, found out by running it on unit vectors, becomes a dense layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import runtime, shapes
from ...ir.errors import UnsupportedError
from ...ir.graph import constant_of, is_float, variable_inputs
from ..framework.rewriting import Refusal
from .convolutions import MAX_REWRITTEN_WEIGHTS
from .rule import Rule

_CHUNK_ROWS = 256
"""Unit vectors that are run at once."""
_TRIED_SCALES = (1e-3, 1.0, 1e3)
"""Factors of random inputs at which an operator must compute what its matrix computes."""


@dataclass(frozen=True)
class Affine:
    """An operator that is affine in one tensor, sample by sample.

    Attributes:
        node: The operator.
        x: The tensor.
        matrix: (out, in), of the type of the tensor.
        offset: (out).
        after: The shape of a sample of the result.
    """

    node: ir.Node
    x: ir.Value
    matrix: np.ndarray
    offset: np.ndarray
    after: list[int]


class AsDense(Rule[Affine]):
    """``Reshape -> Gemm -> Reshape`` for an operator that is affine in one tensor, sample by sample.

    Raises:
        UnsupportedError: It is affine, but its matrix would have more than ``MAX_REWRITTEN_WEIGHTS`` entries.
    """

    name: ClassVar[str] = "as-dense"

    def match(self, node: ir.Node) -> Affine | Refusal | None:
        """Its matrix and offset, by running it on unit vectors."""
        found = _ends(node)
        if found is None:
            return Refusal("it reads several tensors, or is no map of samples of known shape")
        x, before, after = found
        run = _Runner(node, x, before, self.opset)
        if not run.is_affine():
            return Refusal("it is not affine")
        rows, columns = math.prod(before), math.prod(after)
        if rows * columns > MAX_REWRITTEN_WEIGHTS:
            raise UnsupportedError(
                f"{node.op_type} is linear here, but too large to be written as a matrix",
                node=node.name or "",
                op=node.op_type,
                found=f"{rows} x {columns} = {rows * columns} entries",
                allowed=f"up to {MAX_REWRITTEN_WEIGHTS} entries",
                do="use a convolution, pooling or nearest-neighbour resizing instead, or a smaller input",
            )
        offset = run(np.zeros((1, rows)))[0]
        matrix = np.concatenate(
            [run(np.eye(rows)[i : i + _CHUNK_ROWS]) - offset for i in range(0, rows, _CHUNK_ROWS)]
        )
        return Affine(node, x, matrix.T.astype(run.dtype), offset.astype(run.dtype), after)

    def apply(self, match: Affine) -> None:
        """Write the Gemm between two Reshapes."""
        node, edit, name = match.node, self.edit.at(match.node), str(match.node.name)
        flat = edit.constant(f"{name}.flat", np.array([-1, match.matrix.shape[1]]))
        value = edit.add("Reshape", [match.x, flat], f"{name}/flat")
        weight = edit.constant(f"{name}.weight", np.ascontiguousarray(match.matrix))
        bias = edit.constant(f"{name}.bias", match.offset)
        form = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
        value = edit.add("Gemm", [value, weight, bias], f"{name}/matrix", form)
        shape = edit.constant(f"{name}.shape", np.array([-1, *match.after]))
        edit.substitute(node, "Reshape", [value, shape])


def _ends(node: ir.Node) -> tuple[ir.Value, list[int], list[int]] | None:
    """The one tensor, and the shapes of a sample of it and of the result."""
    variable = variable_inputs(node)
    if len(variable) != 1 or len(node.outputs) != 1 or not is_float(node.outputs[0]):
        return None
    x = variable[0]
    before, after = shapes.static_of_sample(x), shapes.static_of_sample(node.outputs[0])
    dims, results = shapes.dims_of(x), shapes.dims_of(node.outputs[0])
    if not is_float(x) or before is None or after is None or not dims or not results:
        return None
    if (
        dims[0] != results[0]
        or dims[0] not in (shapes.BATCH, 1)
        or 0 in (math.prod(before), math.prod(after))
    ):
        return None
    return x, before, after


class _Runner:
    """Runs one node on rows: samples in float64, flat."""

    def __init__(self, node: ir.Node, x: ir.Value, shape: list[int], opset: int) -> None:
        self._node, self._x, self._shape, self._opset = node, x, shape, opset
        assert x.dtype is not None
        self.dtype = x.dtype.numpy()
        dims = shapes.dims_of(x)
        self._single = bool(dims) and dims is not None and dims[0] == 1

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if self._single:
            return np.concatenate([self._run(r[None]) for r in rows])
        return self._run(rows)

    def _run(self, rows: np.ndarray) -> np.ndarray:
        data = rows.reshape(len(rows), *self._shape).astype(self.dtype)
        (found,) = runtime.run_nodes([self._node], {self._x: data}, self._node.outputs, self._opset)
        return found.reshape(len(rows), -1).astype(np.float64)

    def is_affine(self) -> bool:
        """Whether ``f(a + s b) - f(a) = s (f(b) - f(0))`` for random a and b and scales far apart."""
        random = np.random.default_rng(0)
        size = math.prod(self._shape)
        try:
            zero = self(np.zeros((1, size)))[0]
            if not np.isfinite(zero).all():
                return False
            for scale in _TRIED_SCALES:
                a, b = (scale * random.normal(size=(2, size)) for _ in range(2))
                both = np.concatenate([a, b, a + b])
                found = self(both) - zero
                if not np.isfinite(found).all() or found.shape[1] != zero.size:
                    return False
                difference = found[4:] - found[:2] - found[2:4]
                size_of = np.abs(found).max(initial=0) + 1e-5 * np.abs(zero).max(initial=0)
                if np.abs(difference).max(initial=0) > 1e-4 * size_of + 1e-30:
                    return False
        except Exception:  # noqa: BLE001 - what cannot be run on rows is no dense layer
            return False
        return True


def has_weight(node: ir.Node) -> bool:
    """Whether a node is a linear layer by itself, wherever it stands."""
    return (
        not node.domain
        and node.op_type in {"Conv", "ConvTranspose", "Einsum", "MatMul"}
        and any(constant_of(v) is not None for v in node.inputs)
    )
