"""Which layer of the network a table belongs to, as its user would call it."""

from __future__ import annotations

import onnx_ir as ir

from ...ir import graph


def layer_of(table: ir.Node) -> tuple[str, str]:
    """Name and operator of the node whose accumulator a table takes in, else the table's own."""
    if graph.STANDS_FOR[0] in table.metadata_props:
        return graph.title_of(table)
    return graph.title_of(graph.layer_of(table.inputs[0]) or table)
