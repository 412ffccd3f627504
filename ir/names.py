"""A unique name for every node: options, errors and the circuit's statistics refer to nodes by name."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from . import walk


def name_nodes(model: ir.Model) -> bool:
    """Name the nodes that have no name or one that an earlier node has; returns whether there were any.

    A name is made of the operator and a number; the names that are there and unique stay.
    """
    nodes = list(RecursiveGraphIterator(model.graph))
    taken = {node.name for node in nodes if node.name}
    seen: set[str] = set()
    modified = False
    for node in nodes:
        if not node.name or node.name in seen:
            node.name = fresh(node.name or node.op_type, taken)
            modified = True
        seen.add(node.name)
    return modified


def rename_duplicates(proto: onnx.ModelProto) -> None:
    """Tell nodes of the same name apart in a file's protobuf: onnxruntime refuses such a model."""
    nodes = list(walk.nodes(proto))
    taken = {node.name for node in nodes}
    seen = {""}
    for node in nodes:
        if node.name in seen and node.name:
            node.name = fresh(node.name, taken)
        seen.add(node.name)


def fresh(stem: str, taken: set[str]) -> str:
    """``stem`` or, where it is taken, ``stem_1``, ``stem_2``, ...; the result is added to ``taken``."""
    name, number = stem, 0
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name
