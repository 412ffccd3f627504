"""A network of which another tool has quantized only some layers."""

from __future__ import annotations

import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ..analysis.linear import linear_of
from ..analysis.regions import server_nodes
from .missing import has_quantized_weights


def float_layers(model: ir.Model) -> list[ir.Node]:
    """Linear operators of the encrypted part whose weights are float."""
    return [n for n in server_nodes(model) if linear_of(n) is not None and not has_quantized_weights(n)]


def check(model: ir.Model) -> None:
    """Refuse a quantized model with float layers.

    Raises:
        UnsupportedError: There are some; they are named.
    """
    left = float_layers(model)
    if not left:
        return
    raise UnsupportedError(
        "some layers of this quantized model have float weights",
        node=left[0].name or "",
        op=left[0].op_type,
        found=", ".join(str(n.name) for n in left[:5]),
        allowed="quantized weights in every linear operator between the first and the last",
        do="train these layers with weight quantizers too",
    )
