"""Parameters of QONNX's operators as float32, whatever number a tool wrote them as.

QONNX says nothing of their types: Brevitas writes floats, QKeras' converter int64 for zero points and bit
widths. What is computed with them is arithmetic of floats, which neither ONNX's type inference nor
onnxruntime does with two types.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .names import fresh

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
"""``ir.precision`` makes these float32, wherever they are."""


def parameters_to_float(proto: onnx.ModelProto, domains: tuple[str, ...]) -> None:
    """Make all inputs behind the first of the operators of ``domains`` floats, in place.

    Constants get a float copy, so that whoever else reads them finds what was there; what is computed, or
    given as an input, gets a Cast.
    """
    graph = proto.graph
    constants = {t.name: t for t in graph.initializer}
    produced = {o: n for n in graph.node for o in n.output}
    taken = {*constants, *produced, *(i.name for i in graph.input)}
    replaced: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            if node.domain not in domains or not index or not name:
                continue
            if name not in replaced:
                tensor = constants.get(name) or _constant(produced.get(name))
                if tensor is not None and tensor.data_type in _FLOATS:
                    continue
                replaced[name] = fresh(f"{name}_as_float", taken)
                if tensor is None:
                    nodes.append(helper.make_node("Cast", [name], [replaced[name]], to=TensorProto.FLOAT))
                else:
                    array = numpy_helper.to_array(tensor).astype(np.float32)
                    graph.initializer.append(numpy_helper.from_array(array, replaced[name]))
            node.input[index] = replaced[name]
        nodes.append(node)
    if replaced:
        del graph.node[:]
        graph.node.extend(nodes)


def _constant(node: onnx.NodeProto | None) -> TensorProto | None:
    """What a Constant holds; None for another node."""
    if node is None or node.op_type != "Constant" or node.domain or len(node.attribute) != 1:
        return None
    value = helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return value
    array = np.asarray(value)
    return numpy_helper.from_array(array) if array.dtype.kind in "if" else None
