"""Which layer of the network a table belongs to, as its user would call it."""

from __future__ import annotations

import onnx_ir as ir

from ...ir import dialect
from .linear import linear_of
from .regions import variable_inputs


def layer_of(table: ir.Node) -> tuple[str, str]:
    """Name and operator of the linear node whose accumulator a table takes in, else the table's own."""
    current = table.inputs[0]
    while current is not None:
        producer = current.producer()
        if producer is None or (producer.domain == dialect.DOMAIN and producer.op_type != "RoundBits"):
            break
        if linear_of(producer) is not None:
            return str(producer.name), producer.op_type
        variable = variable_inputs(producer)
        if len(variable) != 1:
            return str(producer.name), producer.op_type
        current = variable[0]
    return str(table.name), table.op_type
