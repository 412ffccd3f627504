"""Tensors and shapes: what is declared against what is there, before anybody allocates it."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from ..errors import ModelError
from .limits import FileLimits, hint
from .text import must_be_text

_BITS = {
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
    "COMPLEX128": 128,
}
_NAMES = {number: name for name, number in TensorProto.DataType.items()}
_MAX_TENSOR_ELEMENTS = 2**62
"""Elements that a shape may multiply up to before it is refused: what an int64 counts, with room to spare."""


def check(tensor: TensorProto, limits: FileLimits) -> None:
    """Refuse a tensor whose shape and content do not fit each other.

    Raises:
        ModelError: The type is none, an axis is negative or there are too many, or the bytes differ.
    """
    name = tensor.name
    must_be_text(name)
    for entry in tensor.external_data:
        must_be_text(entry.key, entry.value)
    kind = _NAMES.get(tensor.data_type, "")
    if not kind or kind == "UNDEFINED":
        raise ModelError(
            "a tensor of the model has no type that ONNX knows",
            found=f"tensor {name!r}: data type {tensor.data_type}",
            allowed="a data type of ONNX",
        )
    count = _elements(list(tensor.dims), f"tensor {name!r}", limits)
    if tensor.data_location == TensorProto.EXTERNAL:
        return  # compared once it has been read
    check_content(tensor, count)


def check_content(tensor: TensorProto, count: int | None = None) -> None:
    """Refuse a tensor that holds another number of elements than its shape says.

    Raises:
        ModelError: The numbers differ.
    """
    count = math.prod(tensor.dims) if count is None else count
    kind = _NAMES.get(tensor.data_type, "")
    if tensor.HasField("raw_data"):
        found, wanted, what = len(tensor.raw_data), content_bytes(tensor, count), "bytes"
        if kind == "STRING":
            wanted = -1  # strings are never raw
    else:
        found, wanted, what = _stored(tensor, kind), count, "values"
        if kind in ("INT4", "UINT4", "FLOAT4E2M1"):
            wanted = (count + 1) // 2
        elif kind in ("INT2", "UINT2"):
            wanted = (count + 3) // 4
        elif kind.startswith("COMPLEX"):
            wanted = 2 * count
    if found != wanted:
        raise ModelError(
            "a tensor of the model does not hold what its shape says",
            found=f"tensor {tensor.name!r}, {kind.lower()}{list(tensor.dims)[:8]}: {found} {what}",
            allowed=f"{wanted} {what}",
            do="export the model again",
        )


def content_bytes(tensor: TensorProto, count: int) -> int:
    """Bytes that ``count`` elements of the tensor's type take."""
    return (count * _BITS.get(_NAMES.get(tensor.data_type, ""), 8) + 7) // 8


def check_type(value: onnx.ValueInfoProto, limits: FileLimits) -> None:
    """Refuse a value that declares a shape which no array has.

    Raises:
        ModelError: An axis is negative, or there are too many.
    """
    must_be_text(value.name)
    if value.type.WhichOneof("value") != "tensor_type":
        return
    dims = value.type.tensor_type.shape.dim
    must_be_text(*(d.dim_param for d in dims))
    _elements(
        [d.dim_value for d in dims if d.HasField("dim_value")], f"value {value.name!r}", limits, len(dims)
    )


def _elements(dims: list[int], what: str, limits: FileLimits, rank: int | None = None) -> int:
    rank = len(dims) if rank is None else rank
    if rank > limits.dimensions:
        raise ModelError(
            "a tensor of the model has too many axes",
            found=f"{what}: {rank} axes",
            allowed=f"up to {limits.dimensions}",
            do=hint("dimensions"),
        )
    if any(d < 0 for d in dims):
        raise ModelError(
            "a tensor of the model has a negative axis",
            found=f"{what}: {dims}",
            allowed="0 or more on each axis",
        )
    count = math.prod(dims)
    if count > _MAX_TENSOR_ELEMENTS:
        raise ModelError(
            "a tensor of the model is larger than any memory",
            found=f"{what}: {dims}",
            allowed="shapes whose product fits in 64 bits",
        )
    return count


def _stored(tensor: TensorProto, kind: str) -> int:
    """Number of values in the typed field that the data type calls for."""
    if kind in ("FLOAT", "COMPLEX64"):
        return len(tensor.float_data)
    if kind in ("DOUBLE", "COMPLEX128"):
        return len(tensor.double_data)
    if kind == "INT64":
        return len(tensor.int64_data)
    if kind in ("UINT32", "UINT64"):
        return len(tensor.uint64_data)
    if kind == "STRING":
        return len(tensor.string_data)
    return len(tensor.int32_data)
