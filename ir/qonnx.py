"""Operators of QONNX (Brevitas, FINN): bodies, so that onnxruntime runs them, and one spelling.

After the QONNX specification (Pappalardo et al., 2022, arXiv 2206.07527, and the operator pages of the
``qonnx`` package). Three domains name the same operators. In all of them ``scale`` and ``zeropt`` broadcast
to the tensor, and widths are tensors that hold one number.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from .errors import ModelError
from .qonnx_types import parameters_to_float

if TYPE_CHECKING:
    import onnx

DOMAINS = ("onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general")
"""Domains that files of QONNX use."""
OPERATORS = ("Quant", "BipolarQuant", "Trunc", "TruncTo")
"""Operators that have a body here."""
ROUNDING = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "ROUND_TO_ZERO", "HALF_UP", "HALF_DOWN")
"""Rounding modes that QONNX names."""
_ALIASES = {"IntQuant": "Quant"}


@cache
def bodies() -> dict[tuple[str, str], onnx.FunctionProto]:
    """The bodies of all operators, by (domain, name)."""
    from .qonnx_bodies import protos

    return {(domain, proto.name): proto for domain in DOMAINS for proto in protos(domain)}


def spell(proto: onnx.ModelProto) -> None:
    """Bring the operators of QONNX in ``proto`` to one spelling, in place.

    ``IntQuant`` is ``Quant``; the ``Trunc`` of version 2, which names the scale of its output, is ``TruncTo``
    here, since a body has a fixed number of inputs; names of rounding modes are in capitals; parameters are
    float32.

    Raises:
        ModelError: A rounding mode that QONNX does not have.
    """
    from onnx import helper

    if not any(n.domain in DOMAINS for n in proto.graph.node):
        return
    names = {o.domain for o in proto.opset_import}
    proto.opset_import.extend(
        helper.make_opsetid(d, 1) for d in sorted({n.domain for n in proto.graph.node} & {*DOMAINS} - names)
    )
    for node in proto.graph.node:
        if node.domain in DOMAINS:
            node.op_type = _ALIASES.get(node.op_type, node.op_type)
            if node.op_type == "Trunc" and len(node.input) == 6:
                node.op_type = "TruncTo"
            _spell_rounding(node)
    parameters_to_float(proto, DOMAINS)


def _spell_rounding(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name != "rounding_mode":
            continue
        mode = attribute.s.decode(errors="replace").upper()
        if mode not in ROUNDING:
            raise ModelError(
                "a quantizer has a rounding mode that QONNX does not have",
                node=node.name or node.output[0],
                op=node.op_type,
                found=mode,
                allowed=", ".join(ROUNDING),
                do="export the model with one of these",
            )
        attribute.s = mode.encode()
