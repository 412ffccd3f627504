"""Products of 8-bit integers that are exact on every processor.

On x86-64 without VNNI onnxruntime adds two products of uint8 and int8 in 16 bits, and a sum past 32,767
saturates there (255 * 127 twice). Its products of uint8 and uint8 are exact everywhere, so int8 operands are
moved up by 128, and their zero points with them: the same integers. onnxruntime has the same rewrite
(``session.x64quantprecision``), among the optimizations that ``runtime`` leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .contrib import DOMAIN as CONTRIB

_INT8_TO_UINT8 = 128
"""What takes an int8 value to uint8, and its zero point with it."""


@dataclass(frozen=True)
class _Kernel:
    """Where an operator has its 8-bit tensors.

    Attributes:
        operands: Places of each operand and of its zero point among the inputs.
        result: Place of the zero point of its output; None where that is no 8-bit tensor.
    """

    operands: tuple[tuple[int, int], tuple[int, int]]
    result: int | None = None


_KERNELS = {
    ("", "MatMulInteger"): _Kernel(((0, 2), (1, 3))),
    ("", "ConvInteger"): _Kernel(((0, 2), (1, 3))),
    ("", "QLinearMatMul"): _Kernel(((0, 2), (3, 5)), 7),
    ("", "QLinearConv"): _Kernel(((0, 2), (3, 5)), 7),
    (CONTRIB, "QGemm"): _Kernel(((0, 2), (3, 5)), 8),
}

Types = Callable[[onnx.ModelProto, list[str]], dict[str, int]]
"""Element types of values of a model, by name."""


def exact(proto: onnx.ModelProto, types: Types) -> onnx.ModelProto:
    """``proto`` with no product of int8 operands; itself where it has none.

    Only nodes of the graph itself are looked at: what holds subgraphs is not compiled.

    Args:
        proto: A model with a valid graph; it stays as it is.
        types: Asked for the types of values that nodes compute, once.
    """
    kernels = [(n, k) for n in proto.graph.node if (k := _kernel(n)) is not None]
    if not kernels:
        return proto
    known = {i.name: i.data_type for i in proto.graph.initializer}
    known |= {i.name: i.type.tensor_type.elem_type for i in proto.graph.input}
    read = {n.input[p] for n, k in kernels for p, _ in k.operands}
    read |= {n.input[k.result] for n, k in kernels if k.result is not None and len(n.input) > k.result}
    computed = sorted(read - known.keys() - {""})
    known |= types(proto, computed) if computed else {}
    if TensorProto.INT8 not in (known.get(name) for name in read):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    shifted = _Shift(copy.graph, known)
    for node in proto.graph.node:
        shifted.add(node, _kernel(node))
    del copy.graph.node[:]
    copy.graph.node.extend(shifted.nodes)
    return copy


def _kernel(node: onnx.NodeProto) -> _Kernel | None:
    return _KERNELS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


class _Shift:
    """The nodes of a graph, one after the other, with int8 operands as uint8."""

    def __init__(self, graph: onnx.GraphProto, types: dict[str, int]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._types = types
        self._taken = _names(graph)
        self._moved: dict[str, str] = {}
        self._constants: dict[tuple[int, int], str] = {}

    def add(self, node: onnx.NodeProto, kernel: _Kernel | None) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place, zero in kernel.operands if kernel else ():
            if not self._is_int8(copy, place):
                continue
            copy.input[place] = self._up(copy.input[place])
            copy.input.extend([""] * (zero + 1 - len(copy.input)))
            given = copy.input[zero]
            copy.input[zero] = self._up(given) if given else self._constant(_INT8_TO_UINT8, TensorProto.UINT8)
        result = kernel.result if kernel else None
        if result is None or not self._is_int8(copy, result):
            self.nodes.append(copy)
            return
        copy.input[result] = self._up(copy.input[result])
        wanted, copy.output[0] = copy.output[0], self._name(copy.output[0])
        self.nodes.append(copy)
        self._move(copy.output[0], wanted, -_INT8_TO_UINT8, TensorProto.INT8)

    def _is_int8(self, node: onnx.NodeProto, place: int) -> bool:
        return len(node.input) > place and self._types.get(node.input[place]) == TensorProto.INT8

    def _up(self, name: str) -> str:
        """The value as uint8, moved by 128."""
        if name not in self._moved:
            self._moved[name] = self._name(name)
            self._move(name, self._moved[name], _INT8_TO_UINT8, TensorProto.UINT8)
        return self._moved[name]

    def _move(self, source: str, target: str, by: int, dtype: int) -> None:
        wide, sum_ = self._name(target), self._name(target)
        self.nodes += [
            helper.make_node("Cast", [source], [wide], to=TensorProto.INT32),
            helper.make_node("Add", [wide, self._constant(by, TensorProto.INT32)], [sum_]),
            helper.make_node("Cast", [sum_], [target], to=dtype),
        ]

    def _constant(self, number: int, dtype: int) -> str:
        if (number, dtype) not in self._constants:
            name = self._constants[number, dtype] = self._name("shift")
            array = np.array(number, helper.tensor_dtype_to_np_dtype(dtype))
            self._graph.initializer.append(numpy_helper.from_array(array, name))
        return self._constants[number, dtype]

    def _name(self, like: str) -> str:
        name, number = f"{like}_u8", 0
        while name in self._taken:
            number += 1
            name = f"{like}_u8_{number}"
        self._taken.add(name)
        return name


def _names(graph: onnx.GraphProto) -> set[str]:
    values: Iterable[str] = (v for n in graph.node for v in (*n.input, *n.output))
    return {*values, *(i.name for i in graph.initializer), *(i.name for i in graph.input)}
