"""Samples on axis 0 everywhere, for models that carry them on another axis on the way.

Recurrent cells and attention of many exporters put time in front of the samples, or fold samples and heads
into one axis. Such a model is read as one for a single sample, in which that axis has one element, and gets a
new axis in front of all others: what the operators do along the others stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import constant_of, int_of, variable_inputs
from ...ir.movement import CANDIDATES
from ..analysis.elementwise import ElementwiseProbe
from ..analysis.regions import server_nodes
from . import folding, shapes
from .edit import constant, insert, ints_of

_PAIRS = frozenset(
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


class _NotLiftedError(Exception):
    """An operator that is not known to work along its axes alone."""


def needed(model: ir.Model) -> bool:
    """Whether a float tensor of the encrypted part has its samples elsewhere than on axis 0."""
    for value in model.graph.inputs:
        dims = shapes.dims_of(value)
        if not dims or dims[0] != shapes.BATCH:
            return False
    for node in server_nodes(model):
        for output in node.outputs:
            dims = shapes.dims_of(output)
            if output.dtype is ir.DataType.FLOAT and (not dims or dims[0] != shapes.BATCH):
                return True
    return False


def lift(model: ir.Model) -> bool:
    """Rewrite ``model`` in place; returns False, and leaves it, where an operator is not known.

    Its inputs and outputs stay as they are.
    """
    declared = {v: v.shape for v in (*model.graph.inputs, *(o for n in model.graph for o in n.outputs))}
    old = list(model.graph)
    for value in model.graph.inputs:
        value.shape = ir.Shape([1, *list(value.shape or [])[1:]])
    shapes.infer(model)
    sizes = folding.sizes(model)
    undo = _freeze(model, sizes)
    lifting = _Lifting(model)
    outputs = list(model.graph.outputs)
    try:
        for node in old:
            if node not in sizes:
                lifting.visit(node)
        ends = [lifting.end(o, old[-1]) for o in outputs]
    except _NotLiftedError:
        there = set(old)
        _remove([n for n in model.graph if n not in there], model)
        for node, index, value in undo:
            node.replace_input_with(index, value)
        for value, shape in declared.items():
            value.shape = shape
        return False
    for index, (given, end) in enumerate(zip(outputs, ends, strict=True)):
        model.graph.outputs[index] = end
        end.type = given.type
        name = given.name
        given.name, end.name = f"{name}_before", name
    for value in model.graph.inputs:
        value.shape = declared[value]
    _remove(old, model)
    shapes.infer(model)
    return True


def _freeze(model: ir.Model, sizes: set[ir.Node]) -> list[tuple[ir.Node, int, ir.Value]]:
    """Give the readers of sizes what these are for one sample; returns what they read before."""
    values = [o for n in sizes for o in n.outputs if any(r not in sizes for r in o.consumers())]
    undo: list[tuple[ir.Node, int, ir.Value]] = []
    for value, array in shapes.same_for_all_batches(model, values).items():
        frozen = constant(model.graph, array, f"{value.name}_single")
        for node, index in list(value.uses()):
            if node not in sizes:
                undo.append((node, index, value))
                node.replace_input_with(index, frozen)
    return undo


def _remove(nodes: list[ir.Node], model: ir.Model) -> None:
    for node in reversed(nodes):
        model.graph.remove(node, safe=True)


class _Lifting:
    """The new value for each old one: the same with samples in front."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.opset = model.graph.opset_imports.get("", 21)
        self.probe = ElementwiseProbe(self.opset)
        self.new: dict[ir.Value, ir.Value] = {}
        self.node: ir.Node = next(iter(model.graph))

    def visit(self, node: ir.Node) -> None:
        """Write a node anew; its values must all be static."""
        self.node = node
        variable = variable_inputs(node)
        if not variable:
            raise _NotLiftedError
        for value in (*variable, *node.outputs):
            if value.name and shapes.static_of(value) is None:
                raise _NotLiftedError
        for value in variable:
            if value.is_graph_input() and value not in self.new:
                self.new[value] = self.reshaped(value, self.static(value), "single")
        results = self.rule(node)(node)
        for output, result in zip(node.outputs, results, strict=True):
            result.type = output.type
            self.new[output] = result

    def end(self, output: ir.Value, last: ir.Node) -> ir.Value:
        """The output as the model declares it: its own axis of one sample is the samples' again."""
        static = shapes.static_of(output)
        if static is None or not static or static[0] != 1 or output not in self.new:
            raise _NotLiftedError
        self.node = last
        return self.reshaped(self.new[output], static[1:], "returned")

    def rule(self, node: ir.Node) -> Callable[[ir.Node], list[ir.Value]]:
        """How an operator is written anew."""
        if node.domain:
            raise _NotLiftedError
        op, variable = node.op_type, variable_inputs(node)
        if op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
            return self.layout
        if op in CANDIDATES and op != "Where":
            return {"Transpose": self.transpose, "Concat": self.concat}.get(op, self.gather)
        if op == "MatMul" or op == "Gemm":
            return self.product
        if op.startswith("Reduce"):
            return self.reduce
        if op in _AXIS:
            return self.along
        if op in _PAIRS:
            return self.pair
        if len(variable) == 1 and len(node.outputs) == 1 and self.probe(node, variable):
            return self.pair
        return self.alone

    def static(self, value: ir.Value | None) -> list[int]:
        found = shapes.static_of(value)
        if found is None:
            raise _NotLiftedError
        return found

    def lifted(self, value: ir.Value | None) -> ir.Value:
        if value is None or value not in self.new:
            raise _NotLiftedError
        return self.new[value]

    def add(self, op: str, inputs: list[ir.Value | None], part: str = "", **attributes: object) -> ir.Value:
        name = f"{self.node.name}/{part}" if part else f"{self.node.name}/lifted"
        return insert(self.node, op, inputs, name, attributes)

    def reshaped(self, value: ir.Value, shape: list[int], part: str) -> ir.Value:
        target = constant(self.graph, np.array([-1, *shape], np.int64), f"{self.node.name}.lifted")
        return self.add("Reshape", [value, target], part)

    def again(self, inputs: list[ir.Value | None], **changed: object) -> list[ir.Value]:
        """The same operator, of other inputs, with some attributes changed."""
        kept = {k: a.value for k, a in self.node.attributes.items()} | changed
        return [self.add(self.node.op_type, inputs, **kept)]

    def layout(self, node: ir.Node) -> list[ir.Value]:
        return [self.reshaped(self.lifted(node.inputs[0]), self.static(node.outputs[0]), "lifted")]

    def transpose(self, node: ir.Node) -> list[ir.Value]:
        order = ints_of(node, "perm") or list(range(len(self.static(node.inputs[0]))))[::-1]
        return self.again([self.lifted(node.inputs[0])], perm=[0, *(i + 1 for i in order)])

    def concat(self, node: ir.Node) -> list[ir.Value]:
        if any(constant_of(v) is not None for v in node.inputs):
            raise _NotLiftedError
        axis = int_of(node, "axis", 0) % len(self.static(node.outputs[0]))
        return self.again([self.lifted(v) for v in node.inputs], axis=axis + 1)

    def gather(self, node: ir.Node) -> list[ir.Value]:
        """Any other operator that moves elements: which ones, its run on their numbers says."""
        variable = variable_inputs(node)
        if len(variable) != 1 or variable[0].dtype is not ir.DataType.FLOAT:
            raise _NotLiftedError
        shape = self.static(variable[0])
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
                raise _NotLiftedError from error
            index = np.rint(places).astype(np.int64) - 1
            if index.min(initial=0) < 0 or not np.array_equal(random.ravel()[index], moved):
                raise _NotLiftedError
            flat = self.reshaped(self.lifted(variable[0]), [size], "flat")
            chosen = constant(self.graph, index.ravel(), f"{node.name}.places")
            taken = self.add("Gather", [flat, chosen], "taken", axis=1)
            results.append(self.reshaped(taken, list(index.shape), "lifted"))
        return results

    def product(self, node: ir.Node) -> list[ir.Value]:
        left, right = node.inputs[:2]
        if node.op_type == "Gemm":
            weight, bias = constant_of(right), node.inputs[2] if len(node.inputs) > 2 else None
            if (
                weight is None
                or int_of(node, "transA", 0)
                or (bias is not None and constant_of(bias) is None)
            ):
                raise _NotLiftedError  # normalized, so that alpha and beta are 1
            matrix = weight.T if int_of(node, "transB", 0) else weight
            right = constant(self.graph, np.ascontiguousarray(matrix), f"{node.name}.weight")
            result = self.add("MatMul", [self.lifted(left), right], "product")
            return [result if bias is None else self.add("Add", [result, bias])]
        if min(len(self.static(left)), len(self.static(right))) < 2:
            raise _NotLiftedError
        return self.pair(node)

    def reduce(self, node: ir.Node) -> list[ir.Value]:
        rank = len(self.static(node.inputs[0]))
        axes = ints_of(node, "axes")
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            given = constant_of(node.inputs[1])
            if given is None:
                raise _NotLiftedError
            axes = [int(a) for a in given.ravel()]
        if not axes and int_of(node, "noop_with_empty_axes", 0):
            return [self.lifted(node.inputs[0])]
        moved = [a % rank + 1 for a in axes] if axes else list(range(1, rank + 1))
        where = constant(self.graph, np.array(moved, np.int64), f"{node.name}.axes")
        return self.again([self.lifted(node.inputs[0]), where])

    def along(self, node: ir.Node) -> list[ir.Value]:
        rank = len(self.static(node.inputs[0]))
        axis = int_of(node, "axis", _AXIS[node.op_type]) % rank
        return self.again([self.lifted(node.inputs[0])], axis=axis + 1)

    def pair(self, node: ir.Node) -> list[ir.Value]:
        """Tensors that are broadcast: their own axes are counted from the end."""
        rank = max(len(self.static(v)) for v in node.inputs if v is not None)
        inputs: list[ir.Value | None] = []
        for value in node.inputs:
            if value is None or constant_of(value) is not None:
                inputs.append(value)
                continue
            shape = self.static(value)
            moved = self.lifted(value)
            full = [1] * (rank - len(shape)) + shape
            inputs.append(moved if full == shape else self.reshaped(moved, full, "spread"))
        return self.again(inputs)

    def alone(self, node: ir.Node) -> list[ir.Value]:
        """What works on images takes its own samples on axis 0: one."""
        x = node.inputs[0]
        if (
            node.op_type not in _IMAGES
            or len(variable_inputs(node)) != 1
            or len(node.outputs) != 1
            or constant_of(x) is not None
        ):
            raise _NotLiftedError
        before, after = self.static(x), self.static(node.outputs[0])
        if len(before) < 3 or not after or before[0] != 1 or after[0] != 1:
            raise _NotLiftedError
        single = self.reshaped(self.lifted(x), before[1:], "images")
        result = self.again([single, *node.inputs[1:]])[0]
        return [self.reshaped(result, after, "lifted")]
