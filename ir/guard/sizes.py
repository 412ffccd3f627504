"""How large the values of a graph will be, predicted before anything computes one.

A few bytes of ONNX can ask for more memory than there is: an Expand, a Tile, a ConstantOfShape, sums that
double a shape. onnx's inference tells the shape of each output from those of the inputs, node by node; the
small integers that shapes are made of are computed on the way.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, MutableMapping
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from ..errors import ModelError
from .contents import MAX_CONTENT_ELEMENTS, NUMBERS, SHAPE_MATH, constant_content, shape_content
from .limits import FileLimits, hint
from .work import operations

PRESUMED_BATCH = 3
"""Size of a free batch axis, as models are run on while they are read."""
PRESUMED_FREE_SIZE = 8
"""Size of other free axes, as models are run on while they are read."""

Types = MutableMapping[str, onnx.TypeProto]
Contents = MutableMapping[str, np.ndarray]


def check_sizes(proto: onnx.ModelProto, limits: FileLimits) -> None:
    """Refuse a model with a value, or an amount of work, past the limits.

    Args:
        proto: A checked model without local functions (their calls count as unknown).
        limits: What is allowed.

    Raises:
        ModelError: A value is too large, or there is too much to compute; the node is named.
    """
    _Walk(proto, limits).graph(proto.graph, {}, {}, 1)


class _Walk:
    def __init__(self, proto: onnx.ModelProto, limits: FileLimits) -> None:
        self.limits = limits
        self.opsets = {o.domain: o.version for o in proto.opset_import}
        self.opsets.setdefault("", self.opsets.get("ai.onnx", defs.onnx_opset_version()))
        self.imports = list(proto.opset_import)
        self.ir_version = proto.ir_version
        self.schemas: dict[tuple[str, str], defs.OpSchema | None] = {}
        self.work = 0

    def graph(self, graph: onnx.GraphProto, types: Types, contents: Contents, times: int) -> None:
        """Walk a graph; ``types`` and ``contents`` are filled with what is known about its values."""
        for tensor in graph.initializer:
            types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            if tensor.data_type in NUMBERS and math.prod(tensor.dims) <= MAX_CONTENT_ELEMENTS:
                contents[tensor.name] = numpy_helper.to_array(tensor)
        for value in graph.input:
            if value.name not in types and value.type.WhichOneof("value") == "tensor_type":
                types[value.name] = bound = _bound(value.type)
                self._check(bound, f"input {value.name!r}", None)
        for node in graph.node:
            self._node(node, types, contents, times)

    def _node(self, node: onnx.NodeProto, types: Types, contents: Contents, times: int) -> None:
        graphs = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        if graphs:
            self._control(node, graphs, types, contents, times)
            return
        found = self._infer(node, types, contents)
        known: list[tuple[int, ...] | None] = []
        for name in node.output:
            if name and name in found:
                types[name] = found[name]
                known.append(self._check(found[name], f"{name!r}", node))
        self.work += times * max(1, operations(node, [shape_of(types.get(i)) for i in node.input], known))
        if self.work > self.limits.operations:
            raise ModelError(
                "the model takes more work than a network does",
                node=_name(node),
                op=node.op_type,
                found=f"more than {self.limits.operations:.1e} multiplications for {PRESUMED_BATCH} samples",
                allowed=f"up to {self.limits.operations:.1e}",
                do=hint("operations"),
            )
        self._compute(node, types, contents)

    def _infer(self, node: onnx.NodeProto, types: Types, contents: Contents) -> dict[str, onnx.TypeProto]:
        schema = self._schema(node)
        given = {i: types[i] for i in node.input if i in types}
        if schema is None or len(given) < len({i for i in node.input if i}):
            return {}
        data = {i: numpy_helper.from_array(contents[i]) for i in node.input if i in contents}
        try:
            return dict(
                shape_inference.infer_node_outputs(
                    schema, node, given, data, opset_imports=self.imports, ir_version=self.ir_version
                )
            )
        except Exception:  # noqa: BLE001 - what cannot be inferred is unknown; others say what is wrong with it
            return {}

    def _schema(self, node: onnx.NodeProto) -> defs.OpSchema | None:
        key = ("" if node.domain == "ai.onnx" else node.domain), node.op_type
        if key not in self.schemas:
            try:
                self.schemas[key] = defs.get_schema(key[1], self.opsets.get(key[0], 1), key[0])
            except Exception:  # noqa: BLE001 - SchemaError is private to onnx
                self.schemas[key] = None
        return self.schemas[key]

    def _check(self, type_: onnx.TypeProto, what: str, node: onnx.NodeProto | None) -> tuple[int, ...] | None:
        dims = type_.tensor_type.shape.dim
        # An axis that is not known counts as 1: this is the least that the value can have.
        count = math.prod(d.dim_value for d in dims if d.HasField("dim_value"))
        if count > self.limits.elements or len(dims) > self.limits.dimensions:
            raise ModelError(
                "a value of the model is too large",
                node="" if node is None else _name(node),
                op="" if node is None else node.op_type,
                found=f"{what} of shape {[d.dim_value if d.HasField('dim_value') else '?' for d in dims]}"
                f" for {PRESUMED_BATCH} samples",
                allowed=f"up to {self.limits.elements} elements",
                do=hint("elements"),
            )
        return shape_of(type_)

    def _compute(self, node: onnx.NodeProto, types: Types, contents: Contents) -> None:
        if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            return
        name = node.output[0]
        shape = shape_of(types.get(name))
        if node.op_type == "Constant":
            array = constant_content(node)
        elif node.op_type in ("Shape", "Size"):
            source = shape_of(types.get(node.input[0])) if node.input else None
            array = None if source is None or name not in types else shape_content(node, source)
        elif node.op_type in SHAPE_MATH and all(i in contents for i in node.input if i) and node.input:
            small = shape is not None and math.prod(shape) <= MAX_CONTENT_ELEMENTS
            array = self._run(node, contents) if small or node.op_type == "NonZero" else None
        else:
            array = None
        if array is not None and array.size <= MAX_CONTENT_ELEMENTS and array.dtype.kind in "fib":
            contents[name] = array
            types[name] = helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
            )

    def _run(self, node: onnx.NodeProto, contents: Contents) -> np.ndarray | None:
        # numpy, as onnx's reference has it: onnxruntime ends the process on a whole number divided by zero.
        from onnx.reference import ReferenceEvaluator

        names = list(dict.fromkeys(i for i in node.input if i))
        infos = [
            helper.make_tensor_value_info(i, helper.np_dtype_to_tensor_dtype(contents[i].dtype), None)
            for i in names
        ]
        outputs = [helper.make_empty_tensor_value_info(node.output[0])]
        graph = helper.make_graph([node], "shape", infos, outputs)
        model = helper.make_model(graph, opset_imports=self.imports, ir_version=max(self.ir_version, 8))
        try:
            with np.errstate(all="ignore"):
                found: Any = ReferenceEvaluator(model).run(None, {i: contents[i] for i in names})
                return np.asarray(found[0])
        except Exception:  # noqa: BLE001 - a value that cannot be computed is unknown
            return None

    def _control(
        self,
        node: onnx.NodeProto,
        graphs: Iterable[onnx.GraphProto],
        types: Types,
        contents: Contents,
        times: int,
    ) -> None:
        first = 2 if node.op_type == "Loop" else 0
        if node.op_type == "Loop":
            times *= self._turns(node, contents)
        best: dict[str, onnx.TypeProto] = {}
        for graph in graphs:
            inner_types, inner_contents = ChainMap({}, types), ChainMap({}, contents)
            for at, value in enumerate(graph.input):
                given = node.input[at] if first <= at < len(node.input) else ""
                inner_types[value.name] = types.get(given, onnx.TypeProto())
                # What a loop carries changes from one turn to the next.
                inner_contents.pop(value.name, None)
            self.graph(graph, inner_types, inner_contents, times)
            if node.op_type == "Loop":
                self._must_keep_shapes(node, graph, inner_types)
            if node.op_type == "If":
                for name, result in zip(node.output, graph.output, strict=False):
                    found = inner_types.get(result.name)
                    if found is not None and (name not in best or _least(found) > _least(best[name])):
                        best[name] = found
        types.update(best)

    def _turns(self, node: onnx.NodeProto, contents: Contents) -> int:
        given = contents.get(node.input[0]) if node.input else None
        if given is None or given.size != 1:
            raise ModelError(
                "a loop of the model has no known number of turns",
                node=_name(node),
                op=node.op_type,
                found="a number of turns that is computed from data, or none",
                allowed="a constant",
                do="export the model with its loops unrolled",
            )
        return max(int(given.ravel()[0]), 1)

    def _must_keep_shapes(self, node: onnx.NodeProto, body: onnx.GraphProto, types: Types) -> None:
        """Refuse a loop that carries a value of another shape into the next turn: each turn may double it."""
        pairs = zip(body.input[2:], body.output[1:], strict=False)
        for before, after in list(pairs)[: max(len(node.input) - 2, 0)]:
            shapes = [shape_of(types.get(v.name)) for v in (before, after)]
            if shapes[0] is None or shapes[0] != shapes[1]:
                raise ModelError(
                    "a loop of the model changes the shape of what it carries",
                    node=_name(node),
                    op=node.op_type,
                    found=f"{before.name!r} of shape {shapes[0]} becomes {shapes[1]}",
                    allowed="the same shape in each turn",
                    do="export the model with its loops unrolled",
                )


def shape_of(type_: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The shape, where every axis is known."""
    if type_ is None or not type_.tensor_type.HasField("shape"):
        return None
    dims = type_.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def _bound(type_: onnx.TypeProto) -> onnx.TypeProto:
    copy = onnx.TypeProto()
    copy.CopyFrom(type_)
    for axis, dim in enumerate(copy.tensor_type.shape.dim):
        if not dim.dim_value:  # none of a tensor is little; one of it, of which it may be run, is not
            dim.dim_value = PRESUMED_FREE_SIZE if axis else PRESUMED_BATCH
    return copy


def _least(type_: onnx.TypeProto) -> int:
    return math.prod(d.dim_value for d in type_.tensor_type.shape.dim if d.HasField("dim_value"))


def _name(node: onnx.NodeProto) -> str:
    return node.name or (node.output[0] if node.output else "")
