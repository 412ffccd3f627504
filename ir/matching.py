"""Data matched with the inputs of a model: names, shapes, types, numbers of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .data import LABELS, Data
from .errors import DataError

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Input:
    """What a model takes.

    Attributes:
        name: Name of the graph input.
        shape: Sizes of its axes, None for each that is free; None where nothing is said.
        dtype: Its type.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype

    @classmethod
    def of(cls, value: ir.Value) -> Input:
        """The graph input ``value``."""
        dims = None if value.shape is None else value.shape.dims
        shape = None if dims is None else tuple(d if isinstance(d, int) else None for d in dims)
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        return cls(str(value.name), shape, dtype)


def calibration_for(model: ir.Model, data: Data) -> dict[str, np.ndarray]:
    """The arrays of ``data`` for the inputs of ``model``.

    Numbers are cast to the type of the input. For a model with one input a single array will do, whatever its
    name. Other arrays in the file are ignored where every input is found by name.

    Args:
        model: The model, of any level.
        data: What ``read_npz`` returned, or arrays from anywhere.

    Returns:
        (samples, ...) arrays by input name.

    Raises:
        DataError: A name, shape, type or number of samples does not fit, there are no samples, or values are
            NaN or infinite.
    """
    return arrays_for([Input.of(v) for v in model.graph.inputs], data)


def arrays_for(inputs: Sequence[Input], data: Data) -> dict[str, np.ndarray]:
    """As ``calibration_for``, for inputs that are described.

    Raises:
        DataError: see ``calibration_for``.
    """
    try:
        return _match(inputs, data)
    except DataError as error:
        raise error.located(file=data.file) from error.__cause__


def _match(inputs: Sequence[Input], data: Data) -> dict[str, np.ndarray]:
    arrays = dict(data.arrays)
    if data.labels is not None and any(i.name == LABELS for i in inputs):
        arrays.setdefault(LABELS, data.labels)
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {inputs[0].name: next(iter(arrays.values()))}
    missing = [repr(i.name) for i in inputs if i.name not in arrays]
    if missing:
        raise DataError(
            f"the data has no array for the model's input {', '.join(missing)}",
            found=f"arrays {', '.join(map(repr, arrays)) or 'none'}",
            allowed=", ".join(f"{i.name!r} of shape {_expected(i)}" for i in inputs),
            do="name the arrays like the model's inputs",
        )
    matched = {i.name: _fit(i, np.asarray(arrays[i.name])) for i in inputs}
    counts = {name: len(array) for name, array in matched.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            "the arrays differ in their number of samples",
            found=", ".join(f"{name!r}: {count}" for name, count in counts.items()),
            allowed="the same number of samples for every input",
        )
    count = next(iter(counts.values()), 0)
    if not count:
        raise DataError("the data holds no samples", found="0 samples", allowed="at least one sample")
    if data.labels is not None and len(data.labels) != count:
        raise DataError(
            "labels and samples differ in number",
            found=f"{len(data.labels)} labels, {count} samples",
            allowed="one label per sample",
        )
    return matched


def _fit(value: Input, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iufb":
        raise DataError(
            f"the data for input {value.name!r} is not made of numbers",
            found=f"dtype {array.dtype}",
            allowed="integers or floating-point numbers",
            do="convert it to numbers, as the model was trained on",
        )
    _check_shape(value, array)
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise DataError(
            f"the data for input {value.name!r} holds NaN or infinite values",
            found=f"{int((~finite).sum())} of {array.size}, the first in sample {where[0]} (index {where})",
            allowed="finite numbers",
            do="remove or repair these samples",
        )
    dtype = value.dtype
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array.astype(dtype, copy=False))
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        raise DataError(
            f"the data for input {value.name!r} is too large for its type",
            found=f"values up to {np.abs(array).max():.3g}",
            allowed=f"what {dtype} holds",
        )
    if cast.dtype.kind in "iub" and not np.array_equal(cast, array):
        raise DataError(
            f"the data for input {value.name!r} does not fit its integer type",
            found=f"dtype {array.dtype} with values that {dtype} cannot hold",
            allowed=f"whole numbers in the range of {dtype}",
        )
    return cast


def _check_shape(value: Input, array: np.ndarray) -> None:
    if not array.ndim:
        raise DataError(
            f"the data for input {value.name!r} is a single number",
            found="shape ()",
            allowed=_expected(value),
            do="give an array with the samples on axis 0",
        )
    if value.shape is None:
        return
    expected = list(value.shape)
    rest, given = expected[1:], list(array.shape)
    if len(given) == len(expected) and _fits(rest, given[1:]):
        return
    advice = "give the inputs in the shape that the model was trained on, samples on axis 0"
    static = all(d is not None for d in rest)
    size = int(np.prod([d for d in rest if d is not None])) if static else 0
    if len(given) == len(rest) and _fits(rest, given):
        advice = "this looks like one sample without its batch axis: add it with array[None]"
    elif given and static and array.size == given[0] * size:
        advice = f"the number of elements fits: use array.reshape({', '.join(map(str, [-1, *rest]))})"
    raise DataError(
        f"the data for input {value.name!r} has the wrong shape",
        found=str(tuple(given)),
        allowed=_expected(value),
        do=advice,
    )


def _fits(expected: list[int | None], given: list[int]) -> bool:
    return len(expected) == len(given) and all(
        e is None or e == g for e, g in zip(expected, given, strict=True)
    )


def _expected(value: Input) -> str:
    if value.shape is None:
        return "(samples, ...)"
    rest = [str(d) if isinstance(d, int) else "?" for d in value.shape[1:]]
    return f"({', '.join(['samples', *rest])}{'' if rest else ','})"
