"""Operators on quantized tensors (QLinearConv, QGemm, MatMulInteger) as float ones between Q and DQ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ...ir.contrib import DOMAIN as CONTRIB
from ...ir.errors import UnsupportedError
from ...ir.graph import constant_of
from ...ir.integer_editing import IntegerEditor
from ...ir.ops import DequantizeLinear, QuantizeLinear


def expand(model: ir.Model) -> bool:
    """Spell the operators of onnxruntime's QOperator format as QDQ, in place; returns whether there were any.

    onnxruntime computes these on integers and rounds once, as the spelling does; only the float rounding of
    the factor between accumulator and output may fall on the other side of a tie.

    Raises:
        UnsupportedError: A scale or zero point is computed where a constant is needed.
    """
    edit = IntegerEditor(model)
    modified = False
    for node in list(model.graph):
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx", CONTRIB) else None
        standard = node.op_type in _STANDARD
        if rule is None or standard != (node.domain != CONTRIB):
            continue
        edit.at(node)
        shape, new = node.outputs[0].shape, rule(_Operator(node, edit))
        edit.replace(node, new)
        new.shape = shape
        modified = True
    if modified:
        used = {n.domain for n in model.graph}
        for domain in {CONTRIB} - used:
            model.opset_imports.pop(domain, None)
    return modified


class _Operator:
    """One operator: its inputs as float tensors, its result quantized again."""

    def __init__(self, node: ir.Node, edit: IntegerEditor) -> None:
        self.node = node
        self.edit = edit
        self.name = edit.take_name(node)
        self.like = node.outputs[0]

    def input(self, index: int) -> ir.Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def constant(self, index: int, what: str) -> np.ndarray:
        found = constant_of(self.input(index))
        if found is None:
            raise UnsupportedError(
                f"the {what} of this quantized operator is computed",
                node=self.name,
                op=self.node.op_type,
                found="a tensor that depends on the data",
                allowed="constants (static quantization)",
                do="quantize the model statically, with calibration data",
            )
        return found

    def attributes(self, *without: str) -> list[ir.Attr]:
        return [a for k, a in self.node.attributes.items() if k not in without]

    def dequantized(
        self, data: int, scale: ir.Value | None, zero: ir.Value | None, axis: int = 0
    ) -> ir.Value:
        """Input ``data`` as float."""
        value = self.input(data)
        assert value is not None
        factors = constant_of(scale)
        rank = 0 if factors is None else np.squeeze(factors).ndim
        if factors is not None and factors.ndim and rank == 0:
            scale = self.edit.constant(f"{self.name}_scale", factors.reshape(()))
            points = constant_of(zero)
            zero = None if points is None else self._like(zero, points.reshape(-1)[0])
        made = DequantizeLinear.make(value, scale, zero, axis=axis if rank else None)
        return self.insert(made, f"input_{data}")

    def _like(self, value: ir.Value | None, array: np.ndarray) -> ir.Value:
        assert value is not None
        return self.edit.constant(f"{self.name}_zero", array, np.asarray(constant_of(value)).dtype.type)

    def add(
        self, op: str, inputs: list[ir.Value | None], suffix: str = "", attributes: object = ()
    ) -> ir.Value:
        """A float node; the one without a suffix gets the operator's name."""
        name = f"{self.name}_{suffix}" if suffix else self.name
        result = self.edit.add(op, inputs, name, attributes, like=self.like)  # type: ignore[arg-type]
        result.shape = None
        return result

    def insert(self, node: ir.Node, suffix: str) -> ir.Value:
        """The same, for a node that was made."""
        result = self.edit.insert(node, f"{self.name}_{suffix}", self.like)
        result.shape = None
        return result

    def quantized(self, value: ir.Value, scale: int, zero: int) -> ir.Value:
        """``value`` as the operator's quantized output."""
        made = QuantizeLinear.make(value, self.input(scale), self.input(zero))
        result = self.insert(made, "quantize")
        zero_point = constant_of(self.input(zero))
        dtype = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
        result.type = ir.TensorType(ir.DataType.from_numpy(dtype))
        return result


def _conv(o: _Operator) -> ir.Value:
    x = o.dequantized(0, o.input(1), o.input(2))
    w = o.dequantized(3, o.input(4), o.input(5))
    inputs: list[ir.Value | None] = [x, w]
    if o.input(8) is not None:
        factor = o.constant(1, "scale").astype(np.float64) * o.constant(4, "scale")
        bias = o.constant(8, "bias") * factor.reshape(-1)
        inputs.append(o.edit.constant(f"{o.name}_bias", bias))
    return o.quantized(o.add("Conv", inputs, "", o.attributes()), 6, 7)


def _matmul(o: _Operator) -> ir.Value:
    last = len((o.input(3) or o.like).shape or [0, 0]) - 1
    product = o.add("MatMul", [o.dequantized(0, o.input(1), o.input(2)), _matrix(o, 3, last)])
    return o.quantized(product, 6, 7)


def _matrix(o: _Operator, index: int, axis: int) -> ir.Value:
    return o.dequantized(index, o.input(index + 1), o.input(index + 2), axis)


def _gemm(o: _Operator) -> ir.Value:
    transposed = o.node.attributes.get_int("transB", 0)
    alpha = o.node.attributes.get_float("alpha", 1.0) or 1.0
    inputs: list[ir.Value | None] = [
        o.dequantized(0, o.input(1), o.input(2)),
        _matrix(o, 3, 0 if transposed else 1),
    ]
    if o.input(6) is not None:
        factor = o.constant(1, "scale").astype(np.float64) * o.constant(4, "scale") * alpha
        inputs.append(o.edit.constant(f"{o.name}_bias", o.constant(6, "bias") * factor.reshape(-1)))
    result = o.add("Gemm", inputs, "", o.attributes())
    return result if o.input(7) is None else o.quantized(result, 7, 8)


def _integer(op: str) -> Callable[[_Operator], ir.Value]:
    """ConvInteger and MatMulInteger: integers as floats of scale 1."""

    def rule(o: _Operator) -> ir.Value:
        one = o.edit.constant(f"{o.name}_one", np.ones(()))
        zero = constant_of(o.input(3))
        columns = 1 if zero is None else zero.size
        unit = one if columns == 1 else o.edit.constant(f"{o.name}_ones", np.ones(columns))
        axis = 0 if op == "Conv" else len((o.input(1) or o.like).shape or [0, 0]) - 1
        if (left := constant_of(o.input(2))) is not None and left.size > 1:
            raise UnsupportedError(
                "this operator has a zero point for each row of its data",
                node=o.name,
                op=o.node.op_type,
                found=f"{left.size} zero points",
                allowed="one zero point for the tensor",
                do="quantize activations per tensor",
            )
        w = o.dequantized(1, unit, o.input(3), axis)
        product = o.add(op, [o.dequantized(0, one, o.input(2)), w], "", o.attributes())
        readers = o.node.outputs[0].consumers()
        to_float = all(r.op_type == "Cast" and r.attributes.get_int("to", 0) == 1 for r in readers)
        if to_float and readers and not o.node.outputs[0].is_graph_output():
            return product
        result = o.add("Cast", [product], "cast", {"to": int(ir.DataType.INT32)})
        result.type = ir.TensorType(ir.DataType.INT32)
        return result

    return rule


def _binary(op: str) -> Callable[[_Operator], ir.Value]:
    def rule(o: _Operator) -> ir.Value:
        a, b = o.dequantized(0, o.input(1), o.input(2)), o.dequantized(3, o.input(4), o.input(5))
        return o.quantized(o.add(op, [a, b]), 6, 7)

    return rule


def _unary(op: str, *dropped: str) -> Callable[[_Operator], ir.Value]:
    def rule(o: _Operator) -> ir.Value:
        if o.node.attributes.get_int("channels_last", 0):
            raise UnsupportedError(
                "this quantized operator has its channels last",
                node=o.name,
                op=o.node.op_type,
                found="channels_last=1",
                allowed="channels on axis 1",
                do="quantize the model without layout transformations",
            )
        x = o.dequantized(0, o.input(1), o.input(2))
        return o.quantized(o.add(op, [x], "", o.attributes("channels_last", *dropped)), 3, 4)

    return rule


def _concat(o: _Operator) -> ir.Value:
    parts = [o.dequantized(i, o.input(i + 1), o.input(i + 2)) for i in range(2, len(o.node.inputs), 3)]
    return o.quantized(o.add("Concat", [*parts], "", o.attributes()), 0, 1)


def _quantize(o: _Operator) -> ir.Value:
    return o.quantized(o.node.inputs[0], 1, 2)  # type: ignore[arg-type]


def _dequantize(o: _Operator) -> ir.Value:
    return o.add("DequantizeLinear", list(o.node.inputs), "", o.attributes())


_RULES: dict[str, Callable[[_Operator], ir.Value]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "ConvInteger": _integer("Conv"),
    "MatMulInteger": _integer("MatMul"),
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSoftmax": _unary("Softmax", "opset"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearConcat": _concat,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
_STANDARD = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})
