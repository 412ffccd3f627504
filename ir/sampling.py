"""Random inputs for comparing a model with itself before and after a change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from .errors import ModelError

_KINDS = "fiub"


def random_inputs(
    inputs: Sequence[onnx.ValueInfoProto], batch: int, seed: int = 0, free: int = 8
) -> dict[str, np.ndarray]:
    """One array for each graph input.

    Floating-point inputs are normally distributed; integers are 0 or 1, so that they are valid indices of
    anything.

    Args:
        inputs: Graph inputs (not initializers).
        batch: Size of axis 0 where the model leaves it free.
        seed: Seed of the generator.
        free: Size of every other axis that the model leaves free (the same for all, as they may have to
            match).

    Raises:
        ModelError: An input is no tensor of numbers, or its number of axes is not known.
    """
    generator = np.random.default_rng(seed)
    return {i.name: _array(i, batch, free, generator) for i in inputs}


def _array(info: onnx.ValueInfoProto, batch: int, free: int, generator: np.random.Generator) -> np.ndarray:
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type" or not info.type.tensor_type.HasField("shape"):
        raise ModelError(
            "an input of the model is not a tensor with a known number of axes",
            found=f"input {info.name!r}: {(kind or 'no type').removesuffix('_type')}",
            allowed="tensors of numbers, samples on axis 0",
            do="export the model with the shapes of its inputs",
        )
    dims = info.type.tensor_type.shape.dim
    shape = [
        d.dim_value if d.HasField("dim_value") else batch if axis == 0 else free
        for axis, d in enumerate(dims)
    ]
    dtype = _dtype(info)
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    if dtype.kind in "iu":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _dtype(info: onnx.ValueInfoProto) -> np.dtype:
    code = info.type.tensor_type.elem_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code)) if code else np.dtype(object)
    if dtype.kind not in _KINDS:
        raise ModelError(
            "an input of the model does not hold numbers that onnx-fhe computes with",
            found=f"input {info.name!r}: {onnx.TensorProto.DataType.Name(code).lower()}",
            allowed="floating-point, integer or boolean tensors",
        )
    return dtype
