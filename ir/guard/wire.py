"""A look at a file's bytes before protobuf makes objects of them.

An empty node takes two bytes in a file and over a hundred in memory, so a file far below any size limit could
fill it. This counts the messages and strings of a graph, by the wire format alone.
"""

from __future__ import annotations

from ..errors import ModelError
from .limits import FileLimits, hint

_HARMLESS_BYTES = 2 * 1024**2
"""A file of this size cannot become large, whatever it holds."""

_FIELDS_PER_NODE = 30
"""Names, attributes, shapes and metadata that a node may bring along."""

# Where messages are inside each other: type -> field number -> type. Everything else is skipped as one field.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Opset", 14: "Entry", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 11: "Value", 12: "Value", 13: "Value", 14: "Quantized", 15: "Sparse"},
    "Function": {7: "Node", 9: "Opset", 11: "Attribute", 12: "Value"},
    "Training": {1: "Graph", 2: "Graph"},
    "Node": {5: "Attribute", 9: "Entry"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Tensor": {13: "Entry"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Value": {2: "Type"},
    "Type": {1: "TensorType"},
    "TensorType": {2: "Shape"},
    "Shape": {1: "Entry"},
}
_MAX_MESSAGE_DEPTH = 100
"""Messages inside each other that are followed: Protobuf's own readers stop at 100."""


def check(content: bytes, limits: FileLimits) -> None:
    """Refuse a file of more messages and strings than ``limits.nodes`` nodes can need.

    Bytes that are no protobuf are left to the parser.

    Raises:
        ModelError: There are more.
    """
    if len(content) <= _HARMLESS_BYTES:
        return
    most = limits.nodes * _FIELDS_PER_NODE
    count = 0
    stack: list[tuple[int, int, str]] = [(0, len(content), "Model")]
    while stack:
        at, end, kind = stack.pop()
        inner = _MESSAGES.get(kind, {})
        while at < end:
            tag = content[at]
            at += 1
            if tag > 127:
                tag, at = _varint(content, at - 1, end)
            wire = tag & 7
            if wire == 0:
                _, at = _varint(content, at, end)
            elif wire == 1:
                at += 8
            elif wire == 5:
                at += 4
            elif wire == 2:
                length, at = _varint(content, at, end)
                count += 1
                if count > most:
                    raise ModelError(
                        "the model file holds more parts than a network has",
                        found=f"more than {most} nodes, names, attributes and shapes",
                        allowed=f"up to {limits.nodes} nodes",
                        do=hint("nodes"),
                    )
                message = inner.get(tag >> 3)
                if message is not None and length and len(stack) < _MAX_MESSAGE_DEPTH and at + length <= end:
                    stack.append((at + length, end, kind))
                    end, kind, inner = at + length, message, _MESSAGES.get(message, {})
                    continue
                at += length
            else:
                return  # no protobuf, or one with groups, which ONNX has not


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    return 0, end
