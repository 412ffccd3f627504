"""Which axis of an array carries the samples, told by what follows their number and by nothing else.

A size that happens to be that of the batch says nothing: a tensor of 398 features is no batch of 398 samples,
and a row vector of classes has its samples on axis 1. So more samples than fit one run are run in parts of at
least two different sizes, and the axis whose size is that of the part each time is the samples'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import UnsupportedError


def parts(total: int, most: int) -> list[slice]:
    """All samples in parts of ``most`` or so, not all of which are of the same size."""
    if total <= most:
        return [slice(0, total)]
    sizes = [most] * (total // most) + [total % most] * (total % most > 0)
    if len(set(sizes)) == 1:
        sizes[-2:] = [most + 1, most - 1] if most > 1 else [2]
    ends = np.cumsum(sizes)
    return [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True) if size]


def following(shapes: Sequence[tuple[int, ...]], sizes: Sequence[int], name: str = "") -> int | None:
    """The axis that has as many entries as there are samples in each of several runs.

    Args:
        shapes: Shapes of the same value in each run.
        sizes: Samples of each run, not all the same.
        name: Name of the value, for errors.

    Returns:
        The axis, or None where the shape stays the same whatever the number of samples.

    Raises:
        UnsupportedError: Several axes follow it, or an axis changes in another way.
    """
    if len({len(s) for s in shapes}) == 1:
        columns = list(zip(*shapes, strict=True))
        moving = [i for i, column in enumerate(columns) if len(set(column)) > 1]
        if not moving:
            return None
        # Several entries for each sample (a sequence whose steps were laid out one below the other) follow
        # it too, where they stand in front of all others.
        if len(moving) == 1:
            column = columns[moving[0]]
            if column == tuple(sizes):
                return moving[0]
            each = column[0] // sizes[0]
            if moving[0] == 0 and each and column == tuple(each * s for s in sizes):
                return 0
    raise UnsupportedError(
        "the samples of a batch cannot be told apart in a tensor of this model",
        found=f"{name!r}: " + ", ".join(f"{s} for {n} samples" for s, n in zip(shapes, sizes, strict=True)),
        allowed="tensors that hold as many entries along one axis as there are samples",
        do="export the model with samples on axis 0 of every input and output",
    )


def joined(arrays: Sequence[np.ndarray], axis: int | None, name: str = "") -> np.ndarray:
    """One value, of several runs, with all samples; what does not depend on them is the same in each.

    Args:
        arrays: Arrays of each run.
        axis: Axis of the samples, None where the value does not depend on them.
        name: Name of the value, for errors.

    Raises:
        UnsupportedError: A value without an axis for the samples depends on them.
    """
    if axis is not None:
        return np.concatenate(arrays, axis=axis) if len(arrays) > 1 else arrays[0]
    for array in arrays[1:]:
        if not np.array_equal(array, arrays[0], equal_nan=array.dtype.kind == "f"):
            raise UnsupportedError(
                "the samples of a batch depend on each other in this model",
                found=f"{name!r}, of shape {array.shape} for any number of samples, changes with them",
                allowed="models that compute each sample by itself",
                do="export the model for inference, with samples on axis 0 of every input and output",
            )
    return arrays[0]


def taken(array: np.ndarray, axis: int | None, part: slice) -> np.ndarray:
    """Some of the samples; all of what does not depend on them."""
    return array if axis is None else array[(slice(None),) * axis + (part,)]


def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Results of one sample each, on a new axis 0 unless they have one of their own for it.

    Raises:
        UnsupportedError: Their shapes depend on the values.
    """
    if len({a.shape for a in arrays}) > 1:
        raise UnsupportedError(
            "the shape of a result depends on the values of the sample",
            found=", ".join(str(s) for s in sorted({a.shape for a in arrays})[:4]),
            allowed="as many results for every sample",
            do="cut the model off before the operator that selects or finds elements",
        )
    own = arrays[0].ndim and len(arrays[0]) == 1
    return np.concatenate(arrays) if own else np.stack(arrays)
