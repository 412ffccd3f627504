"""The dialect's operators as the few standard nodes that they come to, for sessions.

The bodies (``dialect_bodies``) hold for tensors of any rank and tables of any size, so they find out about
both each time they run, and onnxruntime takes most of its time to load a model for inlining them. What is
known before leaves a table at most six nodes of 25: the same operations on the same numbers.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from . import dialect
from .ops.view import default_of


def inline(proto: onnx.ModelProto) -> None:
    """Replace, in place, the dialect's operators of the graph itself where what they need is known.

    Others stay, with their bodies: ``PairLookup``, tables that are no initializers, and tables for channels
    of a tensor of unknown rank.
    """
    if not concerns(proto):
        return
    inliner = _Inliner(proto.graph)
    nodes = [made for node in proto.graph.node for made in inliner.replaced(node)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(inliner.added)
    inliner.flatten()
    _drop_bodies(proto)


def concerns(proto: onnx.ModelProto) -> bool:
    """Whether the graph itself holds operators of the dialect."""
    return any(n.domain == dialect.DOMAIN for n in proto.graph.node)


class _Inliner:
    """What the nodes of one graph become.

    Attributes:
        added: Initializers that the new nodes read.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        given = {i.name for i in graph.input}
        self._held = {i.name: i for i in graph.initializer if i.name not in given}
        self._ranks = {
            v.name: len(v.type.tensor_type.shape.dim)
            for values in (graph.value_info, graph.input, graph.output)
            for v in values
            if v.type.tensor_type.HasField("shape")
        }
        self._uses = Counter(name for n in graph.node for name in n.input)
        self._tables: Counter[str] = Counter()
        self._flat: dict[str, str] = {}
        self._zeros = ""
        self.added: list[TensorProto] = []

    def replaced(self, node: NodeProto) -> list[NodeProto]:
        """Nodes that compute what ``node`` does; itself where it is none of the dialect or has to stay."""
        if node.domain != dialect.DOMAIN:
            return [node]
        if node.op_type in ("Encrypt", "Decrypt"):
            return [helper.make_node("Identity", node.input, node.output, node.name)]
        if node.op_type == "RoundBits":
            return self._rounded(node)
        return (self._looked_up(node) if node.op_type == "TableLookup" else None) or [node]

    def _rounded(self, node: NodeProto) -> list[NodeProto]:
        unit = self._constant(node, "unit", np.float32(2.0 ** _int(node, "lsbs_to_remove")))
        half = self._constant(node, "half", np.float32(0.5))
        steps = [("Div", unit), ("Add", half), ("Floor", None), ("Mul", unit)]
        return self._chain(node, steps)

    def _looked_up(self, node: NodeProto) -> list[NodeProto] | None:
        _, table, first = node.input
        if table not in self._held or first not in self._held:
            return None
        channels, size = self._held[table].dims
        start = numpy_helper.to_array(self._held[first])
        steps: list[tuple[str, str | None]] = []
        along = [1]
        if len(start) > 1 or channels > 1:
            rank, axis = self._ranks.get(node.input[0]), _int(node, "axis")
            if rank is None or not 0 <= axis < rank or channels != len(start):
                return None
            along = [channels if i == axis else 1 for i in range(rank)]
        if start.any():
            steps.append(("Sub", self._constant(node, "first", start.reshape(along))))
        if (step := _int(node, "step")) != 1:
            steps.append(("Div", self._constant(node, "step", np.float32(step))))
        steps += [("Cast", None), ("Clip", self._constant(node, "last", np.int64(size - 1)))]
        if channels > 1:
            base = (np.arange(channels, dtype=np.int64) * size).reshape(along)
            steps.append(("Add", self._constant(node, "base", base)))
        self._tables[table] += 1
        steps.append(("Gather", self._flat.setdefault(table, f"onnx_fhe/{table}")))
        return self._chain(node, steps)

    def _chain(self, node: NodeProto, steps: list[tuple[str, str | None]]) -> list[NodeProto]:
        """Nodes of which each reads what the one before computes, and a constant."""
        made, value = [], node.input[0]
        for index, (op_type, constant) in enumerate(steps):
            last = index == len(steps) - 1
            result = node.output[0] if last else f"onnx_fhe/{node.output[0]}/{index}"
            inputs = [value] if constant is None else [value, constant]
            if op_type == "Gather":
                inputs.reverse()
            elif op_type == "Clip":
                inputs.insert(1, self._zero())
            made.append(helper.make_node(op_type, inputs, [result], node.name if last else ""))
            if op_type == "Cast":
                made[-1].attribute.append(helper.make_attribute("to", TensorProto.INT64))
            value = result
        return made

    def _constant(self, node: NodeProto, what: str, array: np.ndarray | np.generic) -> str:
        name = f"onnx_fhe/{node.output[0]}/{what}"
        self.added.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _zero(self) -> str:
        if not self._zeros:
            self._zeros = "onnx_fhe/zero"
            self.added.append(numpy_helper.from_array(np.asarray(0, np.int64), self._zeros))
        return self._zeros

    def flatten(self) -> None:
        """Give the tables one axis; in a copy only where something else reads them."""
        outputs, renamed = {o.name for o in self._graph.output}, set()
        for table, flat in self._flat.items():
            held = self._held[table]
            elements = math.prod(held.dims)
            if self._uses[table] == self._tables[table] and table not in outputs:
                renamed.add(table)
            else:
                held = self._graph.initializer.add()
                held.CopyFrom(self._held[table])
            held.name = flat
            del held.dims[:]
            held.dims.append(elements)
        described = [v for v in self._graph.value_info if v.name not in renamed]
        del self._graph.value_info[:]
        self._graph.value_info.extend(described)


def _int(node: NodeProto, name: str) -> int:
    default = int(default_of(node.op_type, name))
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _drop_bodies(proto: onnx.ModelProto) -> None:
    """Without the bodies that nothing calls; subgraphs and other functions may call any."""
    inner = any(a.HasField("g") or a.graphs for n in proto.graph.node for a in n.attribute)
    if inner or any(f.domain != dialect.DOMAIN for f in proto.functions):
        return
    called = {n.op_type for n in proto.graph.node if n.domain == dialect.DOMAIN}
    kept = [f for f in proto.functions if f.name in called]
    del proto.functions[:]
    proto.functions.extend(kept)
