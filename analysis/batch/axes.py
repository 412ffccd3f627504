"""Operators on one sample, written anew with an axis of samples in front."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ...ir import runtime, shapes
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, int_of, ints_of, variable_inputs
from ...ir.movement import CANDIDATES
from ..regions.elementwise import ElementwiseProbe
from .beside import SampleBySampleProbe, depends

BROADCASTING = frozenset(
    {
        "Add",
        "And",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "PRelu",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    }
)
"""Operators that broadcast several tensors."""
_AXIS = {"ArgMax": 0, "ArgMin": 0, "Hardmax": -1, "LogSoftmax": -1, "LpNormalization": -1, "Softmax": -1}
"""Operators along one axis, and the axis where none is given."""
_IMAGES = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LpPool",
        "MaxPool",
    }
)
"""Operators that take samples on axis 0 and treat each by itself."""


class NotLiftedError(Exception):
    """An operator that is not known to work along its axes alone."""


class Lifting:
    """Maps each value of the old graph to one that has an axis of samples in front.

    Attributes:
        new: With samples on a new axis in front of all others.
        own: With samples in place of the first axis, where that has one entry.
    """

    def __init__(self, model: ir.Model) -> None:
        self.edit = GraphEditor(model)
        self.opset = model.graph.opset_imports.get("", 21)
        self.probe, self.beside = ElementwiseProbe(self.opset), SampleBySampleProbe(self.opset)
        self.new: dict[ir.Value, ir.Value] = {}
        self.own: dict[ir.Value, ir.Value] = {}
        self.node: ir.Node = next(iter(model.graph))

    def visit(self, node: ir.Node) -> None:
        """Write a node anew; its values must all be static."""
        self.node = node
        variable = variable_inputs(node)
        for value in (*variable, *node.outputs):
            if value.name and shapes.static_of(value) is None:
                raise NotLiftedError
        self.own |= {v: v for v in variable if v.is_graph_input()}
        in_place = self.beside(node)
        results = self._in_place(node) if in_place else self._rule(node)(node)
        for output, result in zip(node.outputs, results, strict=True):
            result.type = output.type
            (self.own if in_place else self.new)[output] = result

    def end(self, output: ir.Value, last: ir.Node) -> ir.Value:
        """The output of the new graph: an axis 0 of size 1 that one sample had holds the samples now."""
        if not depends(output):
            return output
        static = shapes.static_of(output)
        if static is None:
            raise NotLiftedError
        self.node = last
        if output in self.own and not self.own[output].is_graph_output():
            return self.own[output]
        own = bool(static) and static[0] == 1
        return self._reshaped(self._lifted(output), static[1:] if own else static, "returned")

    def _in_place(self, node: ir.Node) -> list[ir.Value]:
        """The same node on samples where it had one."""
        inputs = [v if v is None or constant_of(v) is not None else self._placed(v) for v in node.inputs]
        return self.edit.at(node).add_again(node, inputs, f"{node.name}/lifted")

    def _placed(self, value: ir.Value) -> ir.Value:
        """A value with samples in place of its first axis."""
        if value not in self.own:
            self.own[value] = self._reshaped(self._lifted(value), self._static(value)[1:], "placed")
        return self.own[value]

    def _rule(self, node: ir.Node) -> Callable[[ir.Node], list[ir.Value]]:
        """How an operator is written anew."""
        if node.domain:
            raise NotLiftedError
        op, variable = node.op_type, variable_inputs(node)
        if op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
            return self._layout
        if op in CANDIDATES and op != "Where":
            return {"Transpose": self._transpose, "Concat": self._concat}.get(op, self._gather)
        if op == "MatMul" or op == "Gemm":
            return self._product
        if op.startswith("Reduce"):
            return self._reduce
        if op in _AXIS:
            return self._along
        if op in BROADCASTING:
            return self._pair
        if len(variable) == 1 and len(node.outputs) == 1 and self.probe(node, variable):
            return self._pair
        return self._alone

    def _static(self, value: ir.Value | None) -> list[int]:
        found = shapes.static_of(value)
        if found is None:
            raise NotLiftedError
        return found

    def _lifted(self, value: ir.Value | None) -> ir.Value:
        if value is not None and value not in self.new and value in self.own:
            self.new[value] = self._reshaped(self.own[value], self._static(value), "single")
        if value is None or value not in self.new:
            raise NotLiftedError
        return self.new[value]

    def _add(self, op: str, inputs: list[ir.Value | None], part: str = "", **attributes: object) -> ir.Value:
        name = f"{self.node.name}/{part}" if part else f"{self.node.name}/lifted"
        return self.edit.at(self.node).add(op, inputs, name, attributes)

    def _reshaped(self, value: ir.Value, shape: list[int], part: str) -> ir.Value:
        target = self.edit.constant(f"{self.node.name}.lifted", np.array([-1, *shape], np.int64))
        return self._add("Reshape", [value, target], part)

    def _again(self, inputs: list[ir.Value | None], **changed: object) -> list[ir.Value]:
        """The same operator, of other inputs, with some attributes changed."""
        kept = {k: a.value for k, a in self.node.attributes.items()} | changed
        return [self._add(self.node.op_type, inputs, **kept)]

    def _layout(self, node: ir.Node) -> list[ir.Value]:
        return [self._reshaped(self._lifted(node.inputs[0]), self._static(node.outputs[0]), "lifted")]

    def _transpose(self, node: ir.Node) -> list[ir.Value]:
        order = ints_of(node, "perm") or list(range(len(self._static(node.inputs[0]))))[::-1]
        return self._again([self._lifted(node.inputs[0])], perm=[0, *(i + 1 for i in order)])

    def _concat(self, node: ir.Node) -> list[ir.Value]:
        if any(constant_of(v) is not None for v in node.inputs):
            raise NotLiftedError
        axis = int_of(node, "axis", 0) % len(self._static(node.outputs[0]))
        return self._again([self._lifted(v) for v in node.inputs], axis=axis + 1)

    def _gather(self, node: ir.Node) -> list[ir.Value]:
        """Any other operator that moves elements: which ones, its run on their numbers says."""
        variable = variable_inputs(node)
        if len(variable) != 1 or variable[0].dtype is not ir.DataType.FLOAT:
            raise NotLiftedError
        shape = self._static(variable[0])
        size = math.prod(shape)
        numbers = np.arange(1, size + 1, dtype=np.float32).reshape(shape)
        random = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        results = []
        for output in node.outputs:
            if not output.name:
                results.append(output)
                continue
            try:
                places, moved = (
                    runtime.run_nodes([node], {variable[0]: a}, [output], self.opset)[0]
                    for a in (numbers, random)
                )
            except Exception as error:
                raise NotLiftedError from error
            index = np.rint(places).astype(np.int64) - 1
            if index.min(initial=0) < 0 or not np.array_equal(random.ravel()[index], moved):
                raise NotLiftedError
            flat = self._reshaped(self._lifted(variable[0]), [size], "flat")
            chosen = self.edit.constant(f"{node.name}.places", index.ravel())
            taken = self._add("Gather", [flat, chosen], "taken", axis=1)
            results.append(self._reshaped(taken, list(index.shape), "lifted"))
        return results

    def _product(self, node: ir.Node) -> list[ir.Value]:
        left, right = node.inputs[:2]
        if node.op_type == "Gemm":
            weight, bias = constant_of(right), node.inputs[2] if len(node.inputs) > 2 else None
            if (
                weight is None
                or int_of(node, "transA", 0)
                or (bias is not None and constant_of(bias) is None)
            ):
                raise NotLiftedError  # normalized, so that alpha and beta are 1
            matrix = weight.T if int_of(node, "transB", 0) else weight
            right = self.edit.constant(f"{node.name}.weight", np.ascontiguousarray(matrix))
            result = self._add("MatMul", [self._lifted(left), right], "product")
            added = constant_of(bias)
            return [result if added is None or not added.any() else self._add("Add", [result, bias])]
        matrices = min(len(self._static(left)), len(self._static(right))) > 1
        return self._pair(node) if matrices else self._vectors(node, left, right)

    def _vectors(self, node: ir.Node, left: ir.Value | None, right: ir.Value | None) -> list[ir.Value]:
        """A product with a vector: of a row from the left, of a column from the right."""
        rank = max(2, len(self._static(left)), len(self._static(right)))
        inputs: list[ir.Value | None] = []
        for index, value in enumerate((left, right)):
            shape = self._static(value)
            shape = [1, *shape][index:] + [1] * index if len(shape) == 1 else shape
            array = constant_of(value)
            if array is not None:
                matrix = np.ascontiguousarray(array.reshape(shape))
                inputs.append(self.edit.constant(f"{node.name}.matrix", matrix))
            else:
                full = [1] * (rank - len(shape)) + shape
                inputs.append(self._reshaped(self._lifted(value), full, "matrix"))
        product = self._add("MatMul", inputs, "product")
        return [self._reshaped(product, self._static(node.outputs[0]), "lifted")]

    def _reduce(self, node: ir.Node) -> list[ir.Value]:
        rank = len(self._static(node.inputs[0]))
        axes = ints_of(node, "axes")
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            given = constant_of(node.inputs[1])
            axes = [int(a) for a in given.ravel()] if given is not None else None
            if axes is None:
                raise NotLiftedError
        if not axes and int_of(node, "noop_with_empty_axes", 0):
            return [self._lifted(node.inputs[0])]
        moved = [a % rank + 1 for a in axes] if axes else list(range(1, rank + 1))
        where = self.edit.constant(f"{node.name}.axes", np.array(moved, np.int64))
        return self._again([self._lifted(node.inputs[0]), where])

    def _along(self, node: ir.Node) -> list[ir.Value]:
        rank = len(self._static(node.inputs[0]))
        axis = int_of(node, "axis", _AXIS[node.op_type]) % rank
        return self._again([self._lifted(node.inputs[0])], axis=axis + 1)

    def _pair(self, node: ir.Node) -> list[ir.Value]:
        """Tensors that are broadcast: their own axes are counted from the end."""
        rank = max(len(self._static(v)) for v in node.inputs if v is not None)
        inputs: list[ir.Value | None] = []
        for value in node.inputs:
            if value is None or constant_of(value) is not None:
                inputs.append(value)
                continue
            shape = self._static(value)
            moved = self._lifted(value)
            full = [1] * (rank - len(shape)) + shape
            inputs.append(moved if full == shape else self._reshaped(moved, full, "spread"))
        return self._again(inputs)

    def _alone(self, node: ir.Node) -> list[ir.Value]:
        """Give an operator on images, which works sample by sample on axis 0, the samples there."""
        x = node.inputs[0]
        if (
            node.op_type not in _IMAGES
            or len(variable_inputs(node)) != 1
            or len(node.outputs) != 1
            or constant_of(x) is not None
        ):
            raise NotLiftedError
        before, after = self._static(x), self._static(node.outputs[0])
        if len(before) < 3 or not after or before[0] != 1 or after[0] != 1:
            raise NotLiftedError
        single = self._reshaped(self._lifted(x), before[1:], "images")
        result = self._again([single, *node.inputs[1:]])[0]
        return [self._reshaped(result, after, "lifted")]
