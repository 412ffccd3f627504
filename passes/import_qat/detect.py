"""Whether a model was quantized by another tool."""

from __future__ import annotations

import onnx_ir as ir

from ...ir import contrib
from ...ir.level import Level
from ...ir.qonnx import DOMAINS
from ...ir.state import ModelState

_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})


def is_foreign(model: ir.Model) -> bool:
    """Whether quantized operators are in a model that is not known to be of the qdq level or beyond."""
    if ModelState.of(model).level not in (None, Level.FLOAT):
        return False
    return any(_is_quantized(node) for node in model.graph)


def names(model: ir.Model) -> str:
    """The quantized operators of a model, for messages."""
    return ", ".join(sorted({n.op_type for n in model.graph if _is_quantized(n)}))


def _is_quantized(node: ir.Node) -> bool:
    standard = node.domain == "" and node.op_type in _QUANTIZED | _INTEGER
    return standard or contrib.is_known(node.domain, node.op_type) or node.domain in DOMAINS
