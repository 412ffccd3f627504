"""Gemm, MatMul and Conv in their one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.editing import has_attributes, set_attributes
from ...ir.graph import constant_of, float_of, int_of, is_float, rank_of
from ..framework.rewriting import Refusal
from .rule import NOT_CONSTANT, NOT_FLOAT, Rule, is_onnx

_GEMM: dict[str, int | float | list[int]] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}


@dataclass(frozen=True)
class Dense:
    """A Gemm that is not in its form yet.

    Attributes:
        node: The Gemm.
        weight: (out, in), where it is another.
        bias: (out), where it is another.
    """

    node: ir.Node
    weight: np.ndarray | None
    bias: np.ndarray | None


class NormalizeGemm(Rule[Dense]):
    """``Gemm(x, W, b)``: alpha and beta 1, transA 0, transB 1, W (out, in) and b (out) constant."""

    name: ClassVar[str] = "normalize-gemm"

    def match(self, node: ir.Node) -> Dense | Refusal | None:
        """New weights and bias."""
        if not is_onnx(node, "Gemm"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        weight, bias = constant_of(node.inputs[1]), _bias(node)
        if weight is None:
            return NOT_CONSTANT
        across, alpha, beta = (
            int_of(node, "transB", 0),
            float_of(node, "alpha", 1.0),
            float_of(node, "beta", 1.0),
        )
        out = weight.shape[0 if across else 1]
        vector = _bias_vector(bias, out)
        if bias is not None and vector is None:
            return Refusal("its bias is computed, or differs from row to row")
        scaled = filled = None
        if alpha != 1.0 or not across:
            scaled = ((weight if across else weight.T).astype(np.float64) * alpha).astype(weight.dtype)
        if vector is None or beta != 1.0 or rank_of(bias) != 1 or vector.size != out:
            given = np.zeros(1) if vector is None else vector.astype(np.float64) * beta
            filled = np.broadcast_to(given, (out,)).astype(weight.dtype)
        if scaled is None and filled is None and has_attributes(node, _GEMM):
            return None
        return Dense(node, scaled, filled)

    def apply(self, match: Dense) -> None:
        """Write the form."""
        node = match.node
        if int_of(node, "transA", 0):
            name = f"{node.name}/transpose"
            turned = self.edit.at(node).add("Transpose", node.inputs[:1], name, {"perm": [1, 0]})
            node.replace_input_with(0, turned)
        if match.weight is not None:
            self.edit.set_constant(node, 1, match.weight, f"{node.name}.weight")
        if match.bias is not None:
            self.edit.set_constant(node, 2, match.bias, f"{node.name}.bias")
        set_attributes(node, _GEMM)


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _bias_vector(bias: ir.Value | None, out: int) -> np.ndarray | None:
    array = constant_of(bias)
    if array is None or not (array.size == 1 or (array.size == out and array.shape[-1] == out)):
        return None
    return array.reshape(-1)


class SplitBias(Rule[tuple[ir.Node, np.ndarray]]):
    """A bias of a Gemm that is computed, or differs from row to row, is an Add of its own."""

    name: ClassVar[str] = "split-bias"

    def match(self, node: ir.Node) -> tuple[ir.Node, np.ndarray] | None:
        """The Gemm, and the zeros that are its bias then."""
        if not is_onnx(node, "Gemm") or not is_float(node.outputs[0]):
            return None
        weight, bias = constant_of(node.inputs[1]), _bias(node)
        if weight is None or bias is None:
            return None
        out = weight.shape[0 if int_of(node, "transB", 0) else 1]
        return None if _bias_vector(bias, out) is not None else (node, np.zeros(out, weight.dtype))

    def apply(self, match: tuple[ir.Node, np.ndarray]) -> None:
        """Write the Add behind the Gemm, which keeps its name."""
        node, zeros = match
        name, bias, beta = str(node.name), _bias(node), float_of(node, "beta", 1.0)
        edit = self.edit.at(node)
        if beta != 1.0:
            factor = edit.constant(f"{name}.beta", np.array(beta, zeros.dtype))
            bias = edit.add("Mul", [bias, factor], f"{name}/beta", like=bias)
        inputs = [*node.inputs[:2], edit.constant(f"{name}.bias", zeros)]
        attributes = {k: a.value for k, a in node.attributes.items()} | {"beta": 1.0}
        product = edit.add("Gemm", inputs, name, attributes, like=node.outputs[0])
        producer = product.producer()
        assert producer is not None
        producer.name, node.name = name, str(producer.name)
        edit.substitute(node, "Add", [product, bias])


class GemmAsMatmul(Rule[ir.Node]):
    """A product of two computed matrices is no dense layer: MatMul says so."""

    name: ClassVar[str] = "gemm-as-matmul"

    def match(self, node: ir.Node) -> ir.Node | None:
        """The Gemm."""
        if not is_onnx(node, "Gemm") or not is_float(node.outputs[0]):
            return None
        return node if constant_of(node.inputs[1]) is None else None

    def apply(self, match: ir.Node) -> None:
        """Write its parts: transposes, the product, alpha, and the bias with beta."""
        node, edit, name = match, self.edit.at(match), str(match.name)
        (x, w), bias, dtype = node.inputs[:2], _bias(node), node.outputs[0].dtype
        assert x is not None
        assert w is not None
        assert dtype is not None
        if int_of(node, "transA", 0):
            x = edit.add("Transpose", [x], f"{name}/transposeA", {"perm": [1, 0]})
        if int_of(node, "transB", 0):
            w = edit.add("Transpose", [w], f"{name}/transposeB", {"perm": [1, 0]})
        for value in (x, w):
            value.dtype = value.dtype or dtype
        steps = [("MatMul", w)]
        alpha, beta = float_of(node, "alpha", 1.0), float_of(node, "beta", 1.0)
        if alpha != 1.0:
            steps.append(("Mul", edit.constant(f"{name}.alpha", np.array(alpha, dtype.numpy()))))
        if bias is not None:
            if beta != 1.0:
                factor = edit.constant(f"{name}.beta", np.array(beta, dtype.numpy()))
                bias = edit.add("Mul", [bias, factor], f"{name}/beta", like=bias)
            steps.append(("Add", bias))
        value = x
        for op, operand in steps[:-1]:
            value = edit.add(op, [value, operand], f"{name}/{op}", like=node.outputs[0])
        edit.substitute(node, steps[-1][0], [value, steps[-1][1]])


class MatmulToGemm(Rule[tuple[ir.Node, np.ndarray]]):
    """A MatMul of a matrix with a constant matrix on the right becomes a Gemm."""

    name: ClassVar[str] = "matmul-to-gemm"

    def match(self, node: ir.Node) -> tuple[ir.Node, np.ndarray] | Refusal | None:
        """The MatMul and its matrix."""
        if not is_onnx(node, "MatMul"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        weight = constant_of(node.inputs[1])
        if weight is None or weight.ndim != 2:
            return Refusal("its second operand is no constant matrix")
        return (node, weight) if rank_of(node.inputs[0]) == 2 else Refusal("its first operand is no matrix")

    def apply(self, match: tuple[ir.Node, np.ndarray]) -> None:
        """Write the Gemm."""
        node, weight = match
        self.edit.set_constant(node, 1, weight.T, f"{node.name}.weight")
        bias = self.edit.constant(f"{node.name}.bias", np.zeros(weight.shape[1], weight.dtype))
        self.edit.substitute(node, "Gemm", [node.inputs[0], node.inputs[1], bias], _GEMM)
