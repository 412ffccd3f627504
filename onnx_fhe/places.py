"""Where the nodes of a model run: with the client, before or after, or encrypted."""

from __future__ import annotations

import onnx_ir as ir

from .ir.graph import variable_inputs
from .ir.partition import partition

BEFORE, ENCRYPTED, AFTER, CONSTANT = "client, before", "encrypted", "client, after", "constant"
"""Where a node runs, as ``inspect`` prints it."""


def places(model: ir.Model, server: list[ir.Node]) -> dict[str, str]:
    """Where each node of a float or quantized model runs, by its name, with ``server`` the encrypted ones."""
    inside, behind, constant = set(server), set[ir.Node](), set[ir.Node | None]()
    found = {}
    for node in model.graph:
        producers = {v.producer() for v in variable_inputs(node)}
        if node in inside:
            found[node.name or ""] = ENCRYPTED
        elif producers & (inside | behind):
            behind.add(node)
            found[node.name or ""] = AFTER
        elif not producers - constant and not any(v.is_graph_input() for v in variable_inputs(node)):
            constant.add(node)
            found[node.name or ""] = CONSTANT
        else:
            found[node.name or ""] = BEFORE
    return found


def places_of_parts(model: ir.Model) -> dict[str, str]:
    """Where each node of an integer model runs, by its name."""
    parts = partition(model)
    before = {n.name or "": BEFORE for n in parts.prologue.graph}
    after = {n.name or "": AFTER for n in parts.epilogue.graph}
    return before | after | {n.name or "": ENCRYPTED for n in parts.server.graph}
