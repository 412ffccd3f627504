"""A model as text: one line a node, with what the analyses found in columns beside it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs

from . import annotations as known_of
from .errors import printable
from .level import level_of

_MAX_SHOWN_ELEMENTS = 4
"""Elements of a tensor, and parts of a list, that a listing shows."""
_MAX_ATTRIBUTE_CHARACTERS = 60
"""Characters of one attribute that a listing shows."""


def to_text(model: ir.Model) -> str:
    """A listing of ``model``: its inputs and outputs, and a row for each node of the graph.

    The columns are the node's name, operator with attributes, inputs, outputs with their shapes, and, where
    analyses have run, range, bits and PBS of its (first) output. Weights are given by name and shape,
    small ones by value; attributes that have their default are left out. Control characters in names are
    shown escaped, so that a file cannot send any to a terminal.
    """
    rows = [["node", "operator", "inputs", "output", "range", "bits", "PBS"]]
    rows += [_row(node) for node in model.graph]
    graph = model.graph
    head = [
        f"{level_of(model)} level, opset {model.opset_imports.get('', '?')}, {len(graph)} nodes",
        "inputs:  " + ", ".join(_typed(v) for v in graph.inputs),
        "outputs: " + ", ".join(_typed(v) for v in graph.outputs),
    ]
    return "\n".join([*head, "", *_table(rows)]) + "\n"


def _row(node: ir.Node) -> list[str]:
    inputs = ", ".join("-" if v is None else _input(v) for v in node.inputs)
    outputs = ", ".join(_typed(v) for v in node.outputs if v.name)
    known = known_of.get(node.outputs[0]) if node.outputs else known_of.Annotation()
    low_high = (
        "" if known.low is None or known.high is None else f"{_number(known.low)} .. {_number(known.high)}"
    )
    bits = [str(b) for b in (known.bits,) if b is not None]
    if known.table_bits is not None:
        bits.append(f"(table {known.table_bits})")
    pbs = "" if known.pbs is None else str(known.pbs)
    return [line(node.name or ""), _operator(node), inputs, outputs, low_high, " ".join(bits), pbs]


def _operator(node: ir.Node) -> str:
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    attributes = " ".join(
        f"{line(k)}={_attribute(a)}" for k, a in node.attributes.items() if not _is_default(node, a)
    )
    return line(name) + (f" {{{attributes}}}" if attributes else "")


def _is_default(node: ir.Node, attribute: ir.Attr) -> bool:
    """Whether leaving the attribute out would mean the same."""
    if attribute.is_ref() or not defs.has(node.op_type, node.domain):
        return False
    known = defs.get_schema(node.op_type, domain=node.domain).attributes.get(attribute.name)
    if known is None or not known.default_value.type:
        return False
    return bool(onnx.helper.get_attribute_value(known.default_value) == _plain(attribute.value))


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value.encode() if isinstance(value, str) else value


def _attribute(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"@{line(attribute.ref_attr_name or '')}"
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return _array(value)
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "graph"
    if isinstance(value, list | tuple):
        return "[" + _shortened([_scalar(v) for v in value]) + "]"
    return _scalar(value)


def _input(value: ir.Value) -> str:
    name = line(value.name or "")
    if value.const_value is None:
        return name
    return f"{name}={_array(value.const_value)}"


def _array(tensor: ir.TensorProtocol) -> str:
    if tensor.size > _MAX_SHOWN_ELEMENTS:
        return f"{tensor.dtype.name.lower()}[{','.join(str(d) for d in tensor.shape)}]"
    array = np.asarray(tensor.numpy())
    if array.ndim == 0:
        return _scalar(array.item())
    return "[" + _shortened([_scalar(v) for v in array.ravel().tolist()]) + "]"


def _scalar(value: object) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return line(str(value))[:_MAX_ATTRIBUTE_CHARACTERS]


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _shortened(parts: list[str]) -> str:
    if len(parts) <= _MAX_SHOWN_ELEMENTS:
        return " ".join(parts)
    return " ".join(parts[:_MAX_SHOWN_ELEMENTS]) + f" ... {len(parts)} in all"


def _typed(value: ir.Value) -> str:
    shape = "?" if value.shape is None else ",".join(line(str(d)) for d in value.shape.dims)
    kind = "" if value.dtype in (None, ir.DataType.FLOAT) else f" {value.dtype.name.lower()}"
    return f"{line(value.name or '')}[{shape}]{kind}"


def line(text: str) -> str:
    """``text`` on one line and without anything that a terminal would act on."""
    return printable(text).replace("\n", "\\n")


def _table(rows: list[list[str]]) -> list[str]:
    used = [c for c in range(len(rows[0])) if any(row[c] for row in rows[1:])]
    widths = {c: max(len(row[c]) for row in rows) for c in used}
    return ["  ".join(row[c].ljust(widths[c]) for c in used).rstrip() for row in rows]
