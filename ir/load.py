"""Reading a model file into memory, in the one opset and IR version that everything else works on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

from . import dialect, functions, qonnx
from .convert import convert
from .errors import ModelError, OnnxFheError
from .external import load_external_data
from .names import name_nodes, rename_duplicates
from .validate import check_content, check_onnx, check_operators

FILE_KEY = "onnx_fhe.file"
"""Metadata entry with the base name of the file that a model came from."""

MOST_BYTES = 2 * 1024**3


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX file.

    The model comes back in the opset and IR version of ``ir.opsets``, with the same float outputs (compared
    on random inputs where something was converted), its local functions inlined except the dialect's and
    those of operators that plug-ins declared (whose bodies are never kept in memory), its constants as
    initializers that are not graph inputs, and a unique name on every node. A model of the qdq or integer
    level that was saved before is at that level again.

    Args:
        path: The file; weights in external files must lie in its folder.

    Raises:
        ModelError: There is no such file, it is damaged or larger than 2 GB, it is not valid ONNX, it holds
            NaN or infinite weights, operators that nothing defines, training information, sparse initializers
            or external data that is missing or elsewhere, or it changes its outputs in the conversion of its
            opset.
    """
    file = Path(path)
    try:
        return _load(file)
    except OnnxFheError as error:
        raise error.located(file=str(file)) from error.__cause__


def _load(file: Path) -> ir.Model:
    proto = _parse(file)
    check_content(proto)
    load_external_data(proto, file, MOST_BYTES)
    _strip_dialect(proto)
    qonnx.spell(proto)
    functions.strip(proto)
    check_operators(proto)
    check_onnx(proto)
    rename_duplicates(proto)
    model = ir.from_proto(convert(proto))
    dialect.strip(model)
    RemoveInitializersFromInputsPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    name_nodes(model)
    model.metadata_props[FILE_KEY] = file.name
    return model


def _parse(file: Path) -> onnx.ModelProto:
    allowed = "an ONNX file (.onnx)"
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise ModelError("there is no such model file", allowed=allowed, do="check the path") from error
    except (OSError, ValueError) as error:
        raise ModelError("the model file cannot be read", found=_reason(error), allowed=allowed) from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelError("the model is a folder", found="a folder", allowed=allowed, do="name the file in it")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError("the model is not a regular file", found="a device, pipe or socket", allowed=allowed)
    if status.st_size > MOST_BYTES:
        raise ModelError(
            "the model file is too large", found=f"{status.st_size / 1024**3:.1f} GB", allowed="up to 2 GB"
        )
    proto = onnx.ModelProto()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError("the model file cannot be read", found=_reason(error), allowed=allowed) from error
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(
            "this is not an ONNX file, or it is damaged",
            found=f"{len(content)} bytes that are no ONNX protobuf" if content else "an empty file",
            allowed=allowed,
            do="export the model again, or copy the file again if it came over a network",
        ) from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        # Almost any short text parses as a protobuf with unknown fields.
        raise ModelError(
            "this is not an ONNX model: it holds no graph",
            found="an empty file" if not content else f"{len(content)} bytes without nodes or outputs",
            allowed=allowed,
        )
    return proto


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _strip_dialect(proto: onnx.ModelProto) -> None:
    kept = [f for f in proto.functions if f.domain != dialect.DOMAIN]
    del proto.functions[:]
    proto.functions.extend(kept)
    for imported in proto.opset_import:
        if imported.domain == dialect.DOMAIN and imported.version > dialect.VERSION:
            raise ModelError(
                "the model was written by a newer onnx-fhe",
                found=f"domain {dialect.DOMAIN}, version {imported.version}",
                allowed=f"up to version {dialect.VERSION}",
                do="update onnx-fhe",
            )
