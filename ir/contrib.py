"""Operators of onnxruntime's own domain that its quantizer writes; onnxruntime runs them as they are."""

from __future__ import annotations

DOMAIN = "com.microsoft"
OPERATORS = frozenset(
    {
        "DequantizeLinear",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuantizeLinear",
    }
)
"""Those that ``normalize`` spells as float operators between QuantizeLinear and DequantizeLinear."""


def is_known(domain: str, op_type: str) -> bool:
    """Whether an operator is one of these."""
    return domain == DOMAIN and op_type in OPERATORS
