"""Writing a model so that it opens in onnxruntime, Netron and onnx's checker, at any level."""

from __future__ import annotations

import os

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from .errors import OutputError, VerificationError
from .paths import write_bytes
from .runtime import to_proto


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write ``model`` with the bodies of the dialect, checked, in one step.

    The file holds the shapes and annotations of all values that have a type. It loads back to the same level.

    Args:
        model: A model of any level.
        path: The file; one that is there is replaced only when the new one is complete.

    Raises:
        OutputError: ``path`` cannot be written, or the model is larger than a protobuf may be (2 GB).
        VerificationError: The model is not valid ONNX: a defect of the pass that made it.
    """
    write_bytes(path, serialize(model, str(path)))


def serialize(model: ir.Model, file: str = "") -> bytes:
    """The content of the file that ``save`` writes; the same model gives the same bytes.

    Raises:
        OutputError, VerificationError: see ``save``.
    """
    proto = to_proto(model)
    try:
        content = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise OutputError(
            "the model is too large for one file", file=file, found=str(error), allowed="up to 2 GB"
        ) from error
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise VerificationError(
            "the model to save is not valid ONNX", file=file, found=str(error).strip()[:400]
        ) from error
    return bytes(content)
