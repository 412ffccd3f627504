"""Which tools made a file: written into it and printed."""

from __future__ import annotations

from importlib.metadata import version

import onnx
from onnx import helper


def sign(name: str, proto: onnx.ModelProto, *tools: str) -> bytes:
    """The file's content, with the tools and their versions under ``made`` in its metadata.

    Args:
        name: What to call the file on the screen.
        proto: The model; gets the entry.
        tools: Names of the packages that wrote it; none for a model written by hand.
    """
    made = ", ".join(f"{t} {version(t)}" for t in tools) or "by hand"
    kept = {p.key: p.value for p in proto.metadata_props}
    helper.set_model_props(proto, kept | {"made": made})
    content: bytes = proto.SerializeToString()
    opset = max(o.version for o in proto.opset_import if not o.domain)
    print(f"{name}: opset {opset}, {len(content)} bytes, {made}")
    return content
