"""What cannot run encrypted, by operator: why, and what to do instead. Data, for errors and documents."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.graph import RANDOM, variable_inputs


@dataclass(frozen=True)
class Refusal:
    """Why an operator has no encrypted form.

    Attributes:
        reason: One clause.
        instead: What the user may do.
    """

    reason: str
    instead: str


_OUTSIDE = (
    "move it before the first or after the last linear layer, where the client computes it in the clear"
)
_IMITATE = "compile a student that imitates the whole model (--imitate)"
_RECURRENT = Refusal(
    "a recurrent cell feeds encrypted values back into itself, one bootstrap after the other for every step",
    "unroll it for a fixed number of steps when exporting, or use convolutions over time",
)
_CONTROL = Refusal(
    "which branch runs would have to be known, and the server may not know it",
    "compute both branches and choose with Where",
)
_SORTING = Refusal(
    "sorting takes a comparison of every pair of encrypted elements, and their places would be encrypted",
    _OUTSIDE,
)
_SOFTMAX = Refusal(
    "it divides by a sum of exponentials of other elements, a quotient of two wide encrypted numbers",
    "leave it to the client where it comes last; inside a network use it over at most 16 elements, or use"
    " Sigmoid, Relu or HardSigmoid, or divide by a constant",
)
_NORM = Refusal(
    "it divides by a deviation that is computed from the encrypted elements themselves",
    "use BatchNormalization, whose statistics are constants, or fold the layer before exporting",
)
_SHAPE = Refusal("the shape of its result depends on encrypted values", _OUTSIDE)
_RANDOM = Refusal("it draws random numbers, and every run would differ", "remove it for inference")
_LOOKED_UP = Refusal(
    "where an element goes depends on encrypted values",
    "use constant indices, or move it to the client",
)

REFUSALS: dict[str, Refusal] = {
    **dict.fromkeys(("GRU", "LSTM", "RNN", "Scan"), _RECURRENT),
    **dict.fromkeys(("If", "Loop"), _CONTROL),
    **dict.fromkeys(("TopK", "Unique", "NonMaxSuppression"), _SORTING),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "Hardmax"),
        Refusal(
            "the place of the largest element takes a comparison of every pair of elements",
            "leave it to the client where it comes last (free there), use it over at most 16 elements, or use"
            " ReduceMax for the value",
        ),
    ),
    "Attention": Refusal(
        "its masks, caches and Softmax come as one operator",
        "export with opset 22 or older, which writes it as MatMul and Softmax",
    ),
    "Softmax": _SOFTMAX,
    **dict.fromkeys(
        (
            "GroupNormalization",
            "InstanceNormalization",
            "LayerNormalization",
            "LpNormalization",
            "LRN",
            "MeanVarianceNormalization",
            "RMSNormalization",
        ),
        _NORM,
    ),
    **dict.fromkeys(("Compress", "NonZero"), _SHAPE),
    **dict.fromkeys(sorted(RANDOM), _RANDOM),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"), _LOOKED_UP),
    **dict.fromkeys(
        ("Det", "DFT", "Einsum", "GridSample", "RoiAlign", "STFT"),
        Refusal("it mixes encrypted elements in products that no table covers", _OUTSIDE),
    ),
    **dict.fromkeys(
        ("MaxRoiPool", "MaxUnpool"),
        Refusal("it needs to know where the largest element was", "use MaxPool, or Resize for upsampling"),
    ),
    **dict.fromkeys(
        ("CumProd", "ReduceProd"),
        Refusal("a product of many encrypted elements outgrows every table", "add logarithms, or average"),
    ),
    **dict.fromkeys(
        ("DynamicQuantizeLinear",),
        Refusal("its scale depends on the encrypted values", "quantize statically, with calibration data"),
    ),
}
"""By operator of ai.onnx."""


_AT_FAULT = {op for op, known in REFUSALS.items() if known in (_RECURRENT, _CONTROL, _RANDOM)} | {
    "NonMaxSuppression",
    "NonZero",
    "Unique",
}
"""Operators that are why samples cannot be computed side by side, where they cannot."""


def at_fault(model: ir.Model) -> UnsupportedError | None:
    """The error for the first operator that no other export of the batch would help; None without one."""
    for node in model.graph:
        variable = variable_inputs(node)
        if (
            node.domain
            or node.op_type not in _AT_FAULT
            or not (variable or node.op_type in ("If", "Loop", "Scan"))
        ):
            continue
        found = unsupported(node, variable)
        if found.do == _OUTSIDE:
            found.do = "cut the model off before it; the client runs it on what is decrypted"
        return found
    return None


def unsupported(node: ir.Node, variable: list[ir.Value]) -> UnsupportedError:
    """The error for a node between two linear operators that has no encrypted form.

    Args:
        node: The node.
        variable: Its inputs that are not constant.
    """
    where = {"node": node.name or "", "op": node.op_type}
    known = REFUSALS.get(node.op_type) if node.domain == "" else None
    if known is not None:
        return UnsupportedError(
            f"{node.op_type} cannot be computed on encrypted data: {known.reason}",
            found=f"{node.op_type} of {len(variable)} encrypted tensor{'s' * (len(variable) != 1)}"
            if variable
            else node.op_type,
            do=f"{known.instead}; or {_IMITATE}",
            **where,
        )
    several = len(variable) > 1
    return UnsupportedError(
        "this operator cannot be computed on encrypted data here",
        found=f"{node.op_type} of {len(variable)} encrypted tensors"
        if several
        else f"{node.op_type} mixes elements",
        allowed="Gemm, MatMul and Conv with constant weights, products of two encrypted tensors, average and"
        " max-pooling, operators that move elements, and any operator that works element by element on one or"
        " two encrypted tensors",
        do=f"replace it in the network, or {_OUTSIDE}; or {_IMITATE}",
        **where,
    )
