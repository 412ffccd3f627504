"""A network of which another tool has quantized only some layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import linear_of
from ...analysis.regions.server import server_nodes
from ...ir.editing import GraphEditor
from ...ir.errors import UnsupportedError
from ..quantize.graph import quantize_weight
from ..quantize.weights import candidate_scales, fit_scales
from .missing import has_quantized_weights


def float_layers(model: ir.Model) -> list[ir.Node]:
    """Linear operators of the encrypted part whose weights are float."""
    return [n for n in server_nodes(model) if linear_of(n) is not None and not has_quantized_weights(n)]


def refuse(layers: list[ir.Node]) -> UnsupportedError:
    """The error that names the layers."""
    return UnsupportedError(
        "some layers of this quantized model have float weights",
        node=layers[0].name or "",
        op=layers[0].op_type,
        found=", ".join(str(n.name) for n in layers[:5]),
        allowed="quantized weights in every linear operator between the first and the last",
        do="train these layers with weight quantizers too, or round just their weights:"
        " import-qat{calibrate-missing=true}",
    )


def quantize(model: ir.Model, layers: list[ir.Node], bits: int) -> None:
    """Round the weights of float layers to the nearest integers, with a scale per output channel."""
    edit = GraphEditor(model)
    for node in layers:
        linear = linear_of(node)
        assert linear is not None
        matrix = linear.matrix()
        # No weight counts more than another: what the layers before make of the inputs is not looked at.
        moments = [np.eye(matrix.shape[1])] * linear.groups
        found = fit_scales(matrix, moments, candidate_scales(matrix, bits, "mse"), bits)
        quantize_weight(edit, linear, found.integers, found.scale)
