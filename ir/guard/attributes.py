"""Attributes that no operator takes, and that crash some code instead of being refused by it."""

from __future__ import annotations

import re

import onnx

from ..errors import ModelError
from .text import must_be_text

# Lowest value of each element. A stride of 0 divides by zero, which ends the process and not just the run.
_LOWEST: dict[str, int] = {
    "strides": 1,
    "dilations": 1,
    "kernel_shape": 1,
    "group": 1,
    "output_shape": 0,
    "output_padding": 0,
    "blocksize": 1,
    "num_outputs": 1,
    "num_groups": 1,
    "size": 1,
    "hidden_size": 1,
}
_WINDOWS = frozenset({"strides", "dilations", "kernel_shape", "pads", "output_padding"})
_MAX_ATTRIBUTE = 2**31 - 1
"""Largest whole number of such an attribute: no axis of a tensor that fits in memory is longer."""
_TERM = rb"[A-Za-z]*(?:\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(rb"%s(?:,%s)*(?:->%s)?" % (_TERM, _TERM, _TERM))
"""After blanks are taken out."""


def check(node: onnx.NodeProto, *, in_function: bool) -> None:
    """Refuse sizes that are not positive or past 31 bits, in attributes of ONNX's own operators.

    Attributes given twice, and references to attributes of a function outside of one, are refused as well.

    Raises:
        ModelError: There is one; the node is named.
    """
    seen: set[str] = set()
    for attribute in node.attribute:
        must_be_text(attribute.name, attribute.ref_attr_name)
        if attribute.ref_attr_name and not in_function:
            raise _refused(
                node,
                attribute.name,
                f"a reference to {attribute.ref_attr_name!r}",
                "references inside functions only",
            )
        if attribute.name in seen:
            raise _refused(node, attribute.name, "given twice", "each attribute once")
        seen.add(attribute.name)
        if node.domain not in ("", "ai.onnx"):
            continue
        if attribute.name == "equation" and not _EQUATION.fullmatch(attribute.s.replace(b" ", b"")):
            # Some of these keep onnx's shape inference busy for ever.
            raise _refused(node, "equation", repr(attribute.s[:60]), "letters, commas, '...' and '->'")
        if attribute.name not in _LOWEST and attribute.name not in _WINDOWS:
            continue
        given = list(attribute.ints) if attribute.type == onnx.AttributeProto.INTS else [attribute.i]
        if attribute.type not in (onnx.AttributeProto.INTS, onnx.AttributeProto.INT):
            continue
        lowest = _LOWEST.get(attribute.name, -_MAX_ATTRIBUTE)
        if any(not lowest <= value <= _MAX_ATTRIBUTE for value in given):
            whole = f"whole numbers from {lowest} to {_MAX_ATTRIBUTE}"
            allowed = whole if attribute.name in _LOWEST else "31 bits"
            raise _refused(node, attribute.name, str(given[:8]), allowed)


def _refused(node: onnx.NodeProto, name: str, found: str, allowed: str) -> ModelError:
    return ModelError(
        "an attribute of the model makes no sense",
        node=node.name or (node.output[0] if node.output else ""),
        op=node.op_type,
        found=f"{name!r}: {found}",
        allowed=allowed,
        do="export the model again",
    )
