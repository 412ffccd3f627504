"""What users hand over, in the forms that they have it: data as arrays or files, numbers to be checked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .ir.data import LABELS, Data, read_npz
from .ir.errors import UserError
from .ir.range_options import AUTO, RANGE_MODES

DataLike = Data | Mapping[str, Any] | np.ndarray | str | os.PathLike[str]
"""An .npz file, what ``load_data`` returned, arrays by input name, or one array for a single input."""


def as_data(given: DataLike) -> Data:
    """``given`` as ``Data``; an array named ``labels`` is taken for the labels.

    Raises:
        DataError: It is a file that cannot be read.
    """
    if isinstance(given, Data):
        return given
    if isinstance(given, (str, os.PathLike)):
        return read_npz(given)
    if not isinstance(given, Mapping):
        return Data({"array": np.asarray(given)})
    arrays = {name: np.asarray(array) for name, array in given.items()}
    labels = arrays.pop(LABELS, None)
    return Data(arrays, labels)


def check_error(name: str, value: float | None) -> None:
    """Refuse a tolerated error that is no probability.

    Raises:
        UserError: It is not between 0 and 1.
    """
    if value is not None and not 0 < value < 1:
        raise UserError(
            f"{name} is no probability", found=f"{value:g}", allowed="more than 0 and less than 1"
        )


def check_ranges(mode: str, margin: float | str) -> None:
    """Refuse a range mode that does not exist, and a margin out of bounds.

    Raises:
        UserError: It is none of ``RANGE_MODES``; or the margin is negative, not finite or another word than
            ``auto``.
    """
    if mode not in RANGE_MODES:
        raise UserError("there is no such range mode", found=mode, allowed=" or ".join(RANGE_MODES))
    if margin != AUTO and (isinstance(margin, str) or not (math.isfinite(margin) and margin >= 0)):
        raise UserError(
            "the range margin does not make sense", found=f"{margin}", allowed=f"0 or more, or {AUTO}"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that generators do not take.

    Raises:
        UserError: It is negative or past 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UserError("the seed does not fit", found=str(seed), allowed="0 to 4294967295")
