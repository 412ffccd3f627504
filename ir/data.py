"""Calibration and run-time data from .npz files, matched with a model's inputs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from .errors import DataError
from .guard.archive import check_archive, check_member

LABELS = "labels"
_LAYOUT = "an .npz with one array per model input, samples on axis 0, and 'labels' if known"


@dataclass(frozen=True)
class Data:
    """What an .npz file holds.

    Attributes:
        arrays: Arrays by name, samples on axis 0, as they are in the file.
        labels: (samples) int64 classes or other numbers, where known.
        file: Where it was read from; for messages.
    """

    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    file: str = ""


def read_npz(path: str | os.PathLike[str]) -> Data:
    """Read an .npz file; pickled objects are refused, never run.

    Raises:
        DataError: The file is missing, is no .npz, is damaged, holds objects, or its labels do not fit.
    """
    try:
        return _read(Path(path))
    except DataError as error:
        raise error.located(file=str(path)) from error.__cause__


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
    try:
        return _match(model, data)
    except DataError as error:
        raise error.located(file=data.file) from error.__cause__


def _read(path: Path) -> Data:
    check_archive(path, _LAYOUT)
    try:
        content = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError("there is no such data file", allowed=_LAYOUT, do="check the path") from error
    except IsADirectoryError as error:
        raise DataError("the data file is a folder", found="a folder", allowed=_LAYOUT) from error
    except PermissionError as error:
        raise DataError("the data file cannot be read", found="no permission", allowed=_LAYOUT) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            "this is not an .npz file",
            found="another format, or a damaged file",
            allowed=_LAYOUT,
            do=_how_to(),
        ) from error
    if not isinstance(content, np.lib.npyio.NpzFile):
        raise DataError(
            "this is not an .npz file", found="a single .npy array", allowed=_LAYOUT, do=_how_to()
        )
    with content:
        arrays = {name: _member(content, name) for name in content.files}
    labels = arrays.pop(LABELS, None)
    if not arrays and labels is None:
        raise DataError("the data file holds no arrays", found="an empty .npz", allowed=_LAYOUT, do=_how_to())
    return Data(arrays, None if labels is None else _labels(labels, arrays), str(path))


def _how_to() -> str:
    return "write it with numpy.savez(FILE, INPUT_NAME=array, labels=classes)"


def _member(content: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        check_member(content, name)
        array = content[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(
                "the data file holds Python objects, which are not read for safety",
                found=f"array {name!r} of objects",
                allowed="arrays of numbers",
                do="convert it to one rectangular array of numbers before saving",
            ) from error
        raise _damaged(name, error) from error
    except Exception as error:
        raise _damaged(name, error) from error
    if not isinstance(array, np.ndarray):
        raise DataError("a member of the data file is no array", found=repr(name), allowed=_LAYOUT)
    return array


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(
        "an array of the data file cannot be read",
        found=f"array {name!r}: {str(error) or type(error).__name__}",
        do="write the file again",
    )


def _labels(labels: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    if labels.dtype.kind not in "iufb":
        raise DataError(
            "the labels are not numbers", found=f"dtype {labels.dtype}", allowed="one integer per sample"
        )
    if labels.ndim != 1:
        raise DataError(
            "the labels have the wrong shape",
            found=f"shape {labels.shape}",
            allowed="(samples)",
            do="use labels.argmax(axis=1) for one-hot rows, labels.ravel() for a column",
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(
            "the labels hold NaN or infinite values", found="not finite", allowed="one number per sample"
        )
    for name, array in arrays.items():
        if array.ndim and len(array) != len(labels):
            raise DataError(
                "labels and samples differ in number",
                found=f"{len(labels)} labels, {len(array)} samples in {name!r}",
                allowed="one label per sample",
            )
    whole = labels.dtype.kind != "f" or bool((labels == np.floor(labels)).all())
    return labels.astype(np.int64) if whole else labels


def _match(model: ir.Model, data: Data) -> dict[str, np.ndarray]:
    arrays = dict(data.arrays)
    if data.labels is not None and any(i.name == LABELS for i in model.graph.inputs):
        arrays.setdefault(LABELS, data.labels)
    inputs = list(model.graph.inputs)
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {str(inputs[0].name): next(iter(arrays.values()))}
    missing = [repr(i.name) for i in inputs if i.name not in arrays]
    if missing:
        raise DataError(
            f"the data has no array for the model's input {', '.join(missing)}",
            found=f"arrays {', '.join(map(repr, arrays)) or 'none'}",
            allowed=", ".join(f"{i.name!r} of shape {_expected(i)}" for i in inputs),
            do="name the arrays like the model's inputs",
        )
    matched = {str(i.name): _fit(i, np.asarray(arrays[str(i.name)])) for i in inputs}
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


def _fit(value: ir.Value, array: np.ndarray) -> np.ndarray:
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
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
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


def _check_shape(value: ir.Value, array: np.ndarray) -> None:
    if not array.ndim:
        raise DataError(
            f"the data for input {value.name!r} is a single number",
            found="shape ()",
            allowed=_expected(value),
            do="give an array with the samples on axis 0",
        )
    if value.shape is None:
        return
    expected = [d if isinstance(d, int) else None for d in value.shape.dims]
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


def _expected(value: ir.Value) -> str:
    if value.shape is None:
        return "(samples, ...)"
    rest = [str(d) if isinstance(d, int) else "?" for d in value.shape.dims[1:]]
    return f"({', '.join(['samples', *rest])}{'' if rest else ','})"
