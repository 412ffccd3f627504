"""One spelling for what chooses or divides up elements: Split, maxima, Where, and what stands behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...analysis.batch.axes import BROADCASTING
from ...analysis.regions.elementwise import ElementwiseProbe
from ...ir import runtime, shapes
from ...ir.graph import MAXIMA, constant_of, int_of, is_float, rank_of, variable_inputs
from ..framework.rewriting import Refusal
from .rule import NOT_FLOAT, NOT_STATIC, Rule, is_onnx

MAX_MAXIMUM_ELEMENTS = 2**16
"""Elements of a tensor past which nobody would take a maximum of one."""
_GRID = np.concatenate([np.linspace(-50, 50, 2001), np.linspace(-2, 2, 2001)])
"""Where a function is tried that may stand in front of max-pooling as well as behind."""


class SpreadOperand(Rule[tuple[ir.Node, ir.Value, list[int]]]):
    """A tensor that a larger constant meets is spread first: tables keep shapes."""

    name: ClassVar[str] = "spread-operand"

    def match(self, node: ir.Node) -> tuple[ir.Node, ir.Value, list[int]] | Refusal | None:
        """The node, the tensor, and the shape of a sample that it gets."""
        variable = variable_inputs(node)
        if not is_onnx(node, *BROADCASTING) or len(variable) != 1 or not node.outputs:
            return None
        before, after = shapes.dims_of(variable[0]), shapes.dims_of(node.outputs[0])
        if before is None or after is None or not all(isinstance(d, int) for d in after[1:]):
            return NOT_STATIC
        if before == after:
            return None
        if len(before) != len(after) or before[0] != after[0]:
            return Refusal("the constant has more axes, or a batch of its own")
        return node, variable[0], [int(str(d)) for d in after[1:]]

    def apply(self, match: tuple[ir.Node, ir.Value, list[int]]) -> None:
        """Write an Expand in front."""
        node, value, shape = match
        target = self.edit.constant(f"{node.name}.shape", np.array([1, *shape], np.int64))
        wide = self.edit.at(node).add("Expand", [value, target], f"{node.name}/spread")
        wide.type, wide.shape = value.type, node.outputs[0].shape
        for index, given in enumerate(node.inputs):
            if given is value:
                node.replace_input_with(index, wide)


class SplitToSlices(Rule[tuple[ir.Node, int, list[int]]]):
    """A Split is one Slice for each output that is read."""

    name: ClassVar[str] = "split-to-slices"

    def match(self, node: ir.Node) -> tuple[ir.Node, int, list[int]] | Refusal | None:
        """The node, its axis and the sizes of its outputs."""
        if not is_onnx(node, "Split"):
            return None
        rank = rank_of(node.inputs[0])
        if rank is None:
            return NOT_STATIC
        axis = int_of(node, "axis", 0) % rank
        if axis == 0:
            return Refusal("it splits the batch")
        found = [o.shape[axis] if o.shape is not None else None for o in node.outputs]
        sizes = [s for s in found if isinstance(s, int)]
        return (node, axis, sizes) if len(sizes) == len(found) else NOT_STATIC

    def apply(self, match: tuple[ir.Node, int, list[int]]) -> None:
        """Write the slices."""
        node, axis, sizes = match
        start = 0
        for number, (output, size) in enumerate(zip(list(node.outputs), sizes, strict=True)):
            ends = [
                self.edit.constant(f"{node.name}.{what}", np.array([v], np.int64))
                for what, v in (("start", start), ("end", start + size), ("axis", axis))
            ]
            inputs = [node.inputs[0], *ends]
            part = self.edit.at(node).add("Slice", inputs, f"{node.name}/{number}", like=output)
            self.edit.stand_in(output, part, "split")
            start += size
        self.edit.remove(node)


class GlobalMaxToReduce(Rule[tuple[ir.Node, int]]):
    """GlobalMaxPool is a ReduceMax over the image."""

    name: ClassVar[str] = "global-max-to-reduce"

    def match(self, node: ir.Node) -> tuple[ir.Node, int] | Refusal | None:
        """The node and the rank of what it reads."""
        if not is_onnx(node, "GlobalMaxPool"):
            return None
        rank = rank_of(node.inputs[0])
        return NOT_STATIC if rank is None else (node, rank)

    def apply(self, match: tuple[ir.Node, int]) -> None:
        """Write the ReduceMax."""
        node, rank = match
        axes = self.edit.constant(f"{node.name}.axes", np.arange(2, rank, dtype=np.int64))
        self.edit.substitute(node, "ReduceMax", [node.inputs[0], axes], {"keepdims": 1})


class LargestOfOne(Rule[ir.Node]):
    """Max-pooling of windows of one element each, and a maximum along axes of size 1, choose nothing."""

    name: ClassVar[str] = "largest-of-one"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node, where it gives what it reads."""
        if not is_onnx(node, *MAXIMA - {"Max", "Min"}):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        value = node.inputs[0]
        dims = shapes.dims_of(value)
        if value is None or dims is None or dims != shapes.dims_of(node.outputs[0]):
            return Refusal("its result has another shape")
        if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
            return Refusal("its indices are read")
        # Two samples: the largest over the samples of a batch is a sample's own only where it is alone.
        shape = (2, *(d for d in dims[1:] if isinstance(d, int)))
        if len(shape) != len(dims):
            return NOT_STATIC
        if np.prod(shape) > MAX_MAXIMUM_ELEMENTS:
            return Refusal("there are too many elements to try it on")
        # All different, and the other way round: another element shows in one of the two. Padding never wins.
        rising = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        for given in (rising, -rising):
            (found,) = runtime.run_nodes([node], {value: given}, [node.outputs[0]], self.opset)
            if not np.array_equal(found, given):
                return Refusal("it chooses among several elements")
        return node

    def apply(self, match: ir.Node) -> None:
        """Let it give what it reads."""
        self.edit.substitute(match, "Identity", match.inputs[:1])


class LargestOfMany(Rule[ir.Node]):
    """Max and Min of more than two tensors are taken two by two, constants last."""

    name: ClassVar[str] = "largest-of-many"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node."""
        if not is_onnx(node, "Max", "Min"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        return None if sum(v is not None for v in node.inputs) == 2 else node

    def apply(self, match: ir.Node) -> None:
        """Write the pairs."""
        node, inputs = match, [v for v in match.inputs if v is not None]
        if len(inputs) == 1:
            self.edit.substitute(node, "Identity", inputs)
            return
        values = sorted(inputs, key=lambda v: constant_of(v) is not None)
        for number in range(len(values) - 2):
            values[:2] = [self.edit.at(node).add(node.op_type, values[:2], f"{node.name}/{number}")]
        self.edit.substitute(node, node.op_type, values)


class ChooseBySum(Rule[ir.Node]):
    """Where of three encrypted tensors is a sum of two of one choice each: tables have two inputs at most."""

    name: ClassVar[str] = "choose-by-sum"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node."""
        if not is_onnx(node, "Where") or len(variable_inputs(node)) < 3:
            return None
        return node if is_float(node.outputs[0]) else NOT_FLOAT

    def apply(self, match: ir.Node) -> None:
        """Write both choices and their sum."""
        node, edit, result = match, self.edit.at(match), match.outputs[0]
        condition, x, y = node.inputs
        assert result.dtype is not None
        zero = edit.constant(f"{node.name}.zero", np.zeros(1, result.dtype.numpy()))
        first = edit.add("Where", [condition, x, zero], f"{node.name}/yes", like=result)
        second = edit.add("Where", [condition, zero, y], f"{node.name}/no", like=result)
        edit.substitute(node, "Add", [first, second])


@dataclass(frozen=True)
class Pooled:
    """A function of one tensor, and the max-pooling that it alone reads."""

    node: ir.Node
    pool: ir.Node


class FunctionBeforePool(Rule[Pooled]):
    """A function that never falls goes in front of max-pooling: then one quantizer serves for both."""

    name: ClassVar[str] = "function-before-pool"

    def match(self, node: ir.Node) -> Pooled | Refusal | None:
        """Both."""
        pool = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if pool is None or not is_onnx(pool, "MaxPool", "ReduceMax"):
            return None
        pooled = pool.outputs[0]
        if len(list(pooled.uses())) != 1 or pooled.is_graph_output():
            return Refusal("others read the pooling, too")
        scalars = all(c.size == 1 for v in node.inputs if (c := constant_of(v)) is not None)
        if pool.inputs[0] is None or not scalars or variable_inputs(node) != [pooled]:
            return Refusal("it is no function of the pooling alone, the same for all elements")
        if not _rises(node, pooled, self.opset):
            return Refusal("it falls somewhere")
        return Pooled(node, pool)

    def apply(self, match: Pooled) -> None:
        """Exchange the two."""
        node, pool, source = match.node, match.pool, match.pool.inputs[0]
        inputs = [source if v is pool.outputs[0] else v for v in node.inputs]
        attributes = {k: a.value for k, a in node.attributes.items()}
        moved = self.edit.at(pool).add(node.op_type, inputs, str(node.name), attributes, like=source)
        kept, name = {k: a.value for k, a in pool.attributes.items()}, pool.name
        replaced = self.edit.substitute(node, pool.op_type, [moved, *pool.inputs[1:]], kept)
        self.edit.remove(pool)
        replaced.name = name


def _rises(node: ir.Node, value: ir.Value, opset: int) -> bool:
    """Whether a function of one tensor never falls, as far as a fine grid shows."""
    if node.domain or len(node.outputs) != 1 or node.outputs[0].shape != value.shape:
        return False
    if not ElementwiseProbe(opset)(node, [value]):
        return False
    grid = np.unique(_GRID).astype(np.float32).reshape([-1] + [1] * (len(value.shape or ()) - 1))
    try:
        (found,) = runtime.run_nodes([node], {value: grid}, node.outputs, opset)
    except Exception:  # noqa: BLE001 - what cannot be tried stays where it is
        return False
    return found.dtype == np.float32 and bool(
        np.isfinite(found).all() and (np.diff(found.ravel()) >= 0).all()
    )
