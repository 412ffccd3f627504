"""Reading a model file into memory, in the one opset and IR version that everything else works on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

from . import classical, dialect, functions, precision, qonnx
from .bind import Shapes, bind_to
from .bind import bind as bind_axes
from .convert import convert
from .declared import check_declared
from .errors import ModelError, OnnxFheError
from .external import load_external_data
from .guard import FileLimits, check_structure
from .guard.reading import parse_model, read_regular
from .names import name_nodes, rename_duplicates
from .repair import repair
from .state import ModelState
from .validate import check_content, check_onnx, check_operators


def load(
    path: str | os.PathLike[str],
    limits: FileLimits | None = None,
    *,
    bind: Mapping[str, int] | None = None,
    shapes: Shapes | None = None,
    any_model: bool = False,
) -> ir.Model:
    """Read an ONNX file.

    The model comes back in the opset and IR version of ``ir.opsets``, with the same float outputs (compared
    on random inputs where something was converted), computed in single precision (``ir.precision``), its
    local functions inlined except the dialect's and those of operators that plug-ins declared (whose bodies
    are never kept in memory), its constants as initializers that are not graph inputs, and a unique name on
    every node. A model of the qdq or integer level that was saved before is at that level again.

    Args:
        path: The file; weights in external files must lie in its folder.
        limits: How much the file may hold (``ir.guard``), above what networks need where none are given.
        bind: Sizes of free axes of the inputs, by the name of the axis (or ``INPUT.AXIS``).
        shapes: Shapes of data by input name, samples on axis 0: they bind the free axes behind it.
        any_model: Trees and kernel machines are loaded, too, for ``imitate``.

    Raises:
        ModelError: There is no such file, it is damaged or past a limit, it is not valid ONNX, it holds
            NaN or infinite weights, operators that nothing defines, training information, sparse initializers
            or external data that is missing or elsewhere, a size to bind fits no free axis, or it changes
            its outputs in the conversion of its opset.
        UnsupportedError: It is a tree, a forest or a kernel machine.
    """
    file = Path(path)
    try:
        return _load(file, limits or FileLimits(), bind or {}, shapes or {}, any_model)
    except OnnxFheError as error:
        raise error.located(file=str(file)) from error.__cause__


def _load(
    file: Path, limits: FileLimits, sizes: Mapping[str, int], shapes: Shapes, any_model: bool
) -> ir.Model:
    content = read_regular(file, limits.bytes)
    proto = parse_model(content, limits)
    check_structure(proto, limits)
    check_content(proto)
    load_external_data(proto, file, limits.bytes)
    _strip_dialect(proto)
    repair(proto)
    qonnx.spell(proto)
    functions.strip(proto)
    check_operators(proto)
    if not any_model:
        classical.check_classical(proto)  # before numbers are looked at: a tree may split at infinity
    check_onnx(proto)
    check_declared(proto)
    precision.to_single(proto)
    rename_duplicates(proto)
    classical.drop_zip_maps(proto)
    bind_axes(proto, sizes)
    bind_to(proto, shapes)
    model = _deserialized(convert(proto, limits))
    dialect.strip(model)
    RemoveInitializersFromInputsPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _unpack(model)
    name_nodes(model)
    digest = hashlib.sha256(content).hexdigest()
    replace(ModelState.of(model), file=file.name, sha256=digest).record(model)
    return model


def _unpack(model: ir.Model) -> None:
    """Hold constants as arrays: those of a protobuf are copied each time that someone looks at them."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.TensorProtoTensor) and tensor.dtype != ir.DataType.STRING:
            value.const_value = ir.Tensor(
                tensor.numpy(),
                tensor.dtype,
                name=tensor.name,
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )


def _deserialized(proto: onnx.ModelProto) -> ir.Model:
    try:
        return ir.from_proto(proto)
    except ir.serde.SerdeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelError(
            "the model holds something that cannot be read",
            found=str(cause).split(". ")[0][:300],
            allowed="tensors of numbers",
            do="export the model with tensors for inputs and outputs",
        ) from error


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
