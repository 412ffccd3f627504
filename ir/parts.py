"""A few nodes of a graph as a model of their own, and a key by which the same nodes are known again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from . import dialect
from .graph import LINEAR

_MAX_INITIALIZER_ELEMENTS = 1024
"""Constants of more elements are inputs: onnxruntime copies initializers several times while it loads."""
_PLAIN = {
    ir.AttributeType.FLOAT,
    ir.AttributeType.INT,
    ir.AttributeType.STRING,
    ir.AttributeType.FLOATS,
    ir.AttributeType.INTS,
    ir.AttributeType.STRINGS,
}
_CHANGING = LINEAR | {"Add", "Sub", "Mul", "TableLookup"}
"""Operators whose constants differ from one trial to the next: as inputs they leave the session the same."""
_VERSIONS = {"ai.onnx.ml": 3, "com.microsoft": 1}
"""Versions of domains, other than ONNX's own, whose operators onnxruntime runs itself."""
_DRAWING = {"Bernoulli", "Dropout", "Multinomial"} | {
    f"Random{k}{like}" for k in ("Normal", "Uniform") for like in ("", "Like")
}


class Part:
    """Nodes that run by themselves.

    Args:
        nodes: The nodes, topologically sorted.
        values: Arrays for the values that they read and do not produce; initializers are found by themselves.
        wanted: The values to return.
        opset: ai.onnx opset of the graph.

    Attributes:
        inputs: What the model is given, by name: arrays of ``values`` and constants.
        elements: How many the nodes read in all.
        given: Names of the inputs that stand for ``values``.
        wanted: Names of the outputs.
        key: Equal for parts with equal models; None where one cannot tell, or where a session may not be used
            again, since what draws numbers would go on where the run before stopped.

    Raises:
        KeyError: There is no value for an input.
    """

    def __init__(
        self,
        nodes: Sequence[ir.Node],
        values: Mapping[ir.Value, np.ndarray],
        wanted: Sequence[ir.Value],
        opset: int,
    ) -> None:
        self._nodes, self._opset = nodes, opset
        self._names: dict[ir.Value, str] = {}
        self._constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, np.ndarray] = {}
        self.given: dict[ir.Value, str] = {}
        self.elements = 0
        produced = {o for n in nodes for o in n.outputs}
        for node in nodes:
            for value in node.inputs:
                if value is None or value in produced or value in self._names:
                    continue
                if value in values:
                    self.given[value] = name = self._name_of(value)
                    self.inputs[name] = values[value]
                    self.elements += self.inputs[name].size
                elif value.const_value is not None:
                    self._hold(node, self._name_of(value), value.const_value.numpy())
                else:
                    raise KeyError(f"no value for {value.name!r}, an input of {node.name!r}")
            for output in node.outputs:
                self._name_of(output)
        self.wanted = [self._name_of(v) for v in wanted]
        self.key = self._key()

    def _name_of(self, value: ir.Value) -> str:
        return self._names.setdefault(value, f"v{len(self._names)}")

    def _hold(self, node: ir.Node, name: str, array: np.ndarray) -> None:
        self.elements += array.size
        changes = node.op_type in _CHANGING and array.dtype == np.float32 and array.ndim > 0
        if array.size > _MAX_INITIALIZER_ELEMENTS or changes:
            self.inputs[name] = array
        else:
            self._constants[name] = array

    def _key(self) -> tuple[Any, ...] | None:
        known = {"", dialect.DOMAIN, *_VERSIONS}
        if any(n.domain not in known or n.op_type in _DRAWING for n in self._nodes):
            return None  # a plug-in may bring another body under the same name
        attributes = [a for n in self._nodes for a in n.attributes.values()]
        if any(a.type not in _PLAIN for a in attributes):
            return None
        if any(a.dtype.kind in "OSU" for a in self._constants.values()):
            return None
        return (
            self._opset,
            *(
                (
                    n.domain,
                    n.op_type,
                    *((a.name, a.type, _hashable(a.value)) for a in n.attributes.values()),
                    *(None if v is None else self._names[v] for v in n.inputs),
                    len(n.outputs),
                )
                for n in self._nodes
            ),
            *((k, a.dtype.str, a.ndim) for k, a in self.inputs.items()),
            *((k, a.dtype.str, a.shape, a.tobytes()) for k, a in self._constants.items()),
            *self.wanted,
        )

    def proto(self) -> onnx.ModelProto:
        """The model, with the bodies of its operators."""
        protos = []
        for node in self._nodes:
            proto = ir.serde.serialize_node(node)
            del proto.input[:], proto.output[:]
            proto.input.extend("" if v is None else self._names[v] for v in node.inputs)
            proto.output.extend(self._names[v] for v in node.outputs)
            protos.append(proto)
        infos = [
            # Free shapes: with static ones onnxruntime propagates shape data while it loads, which takes far
            # longer.
            onnx.helper.make_tensor_value_info(
                k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), [None] * v.ndim
            )
            for k, v in self.inputs.items()
        ]
        # Names of classes: onnx writes strings as objects only.
        initializers = [
            onnx.numpy_helper.from_array(a.astype(object) if a.dtype.kind in "SU" else a, k)
            for k, a in self._constants.items()
        ]
        results = [onnx.helper.make_empty_tensor_value_info(name) for name in self.wanted]
        graph = onnx.helper.make_graph(protos, "part", infos, results, initializers)
        versions = {"": self._opset} | {
            d: _VERSIONS[d] for d in sorted({n.domain for n in self._nodes} & _VERSIONS.keys())
        }
        imports = [onnx.helper.make_opsetid(d, v) for d, v in versions.items()]
        return dialect.attach(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10))


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value
