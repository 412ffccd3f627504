"""Whether samples have to be brought to axis 0 (``analysis.batch.lift`` does it)."""

from __future__ import annotations

import onnx_ir as ir

from ...analysis.regions.server import server_nodes
from ...ir import shapes


def needs_lifting(model: ir.Model) -> bool:
    """Whether a float tensor of the encrypted part has samples elsewhere than on axis 0, or no other axis."""
    for value in model.graph.inputs:
        dims = shapes.dims_of(value)
        if not dims or dims[0] != shapes.BATCH:
            return False
    for node in server_nodes(model):
        for output in node.outputs:
            dims = shapes.dims_of(output)
            if output.dtype is ir.DataType.FLOAT and (not dims or dims[0] != shapes.BATCH or len(dims) < 2):
                return True
    return False
