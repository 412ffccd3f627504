"""Calibration and run-time data from .npz files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .array_archive import check_archive, check_member
from .errors import DataError

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
