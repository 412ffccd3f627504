"""Which units each output element of an operator depends on, found out by running it: no operator is
described here.

The units of an input are numbered in binary. For each digit the operator runs once with all units changed
that have a 1 there and once with all that have a 0. An output element that follows one unit alone reacts to
exactly one of the two runs for every digit, and so spells the unit's number; one that mixes units reacts to
both somewhere. This is one run of a few samples for hundreds of channels, and it holds for layout operators,
pooling and everything else alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ....ir import runtime

CONSTANT = -1
"""In place of a unit's number: the element depends on no unit."""
MIXED = -2
"""In place of a unit's number: the element depends on several units."""
_FLOAT_TOLERANCE = 1e-4
"""Change of an element, relative to its size, that counts as none: float operators differ by that."""


class NotSampleWiseError(Exception):
    """The operator cannot be run on stand-ins, or not sample by sample."""


def dependence(node: ir.Node, units: Mapping[ir.Value, np.ndarray], opset: int) -> list[list[np.ndarray]]:
    """What the outputs of ``node`` depend on.

    Args:
        node: Any operator; axis 0 of its variable inputs and of its outputs is the batch.
        units: For each of its variable inputs the unit of each element of one sample, or ``CONSTANT``.
        opset: ai.onnx opset of the model.

    Returns:
        For each named output an array (one sample) for each input in ``units``: the unit that the element
        follows, ``CONSTANT`` or ``MIXED``.

    Raises:
        NotSampleWiseError: It cannot be run on stand-ins, or its outputs have another batch.
    """
    random = np.random.default_rng(0)
    base = {v: random_values(v, u.shape, random) for v, u in units.items()}
    plans = [_plan(value, units[value], base, random) for value in units]
    feeds = {v: np.concatenate([p[v] for p in plans]) for v in units}
    total = len(next(iter(feeds.values())))
    wanted = [o for o in node.outputs if o.name]
    try:
        results = runtime.run_nodes([node], feeds, wanted, opset)
    except Exception as error:
        raise NotSampleWiseError(str(error)) from error
    if any(r.ndim == 0 or len(r) != total for r in results):
        raise NotSampleWiseError("the batch is not axis 0 of its outputs")
    sizes = np.cumsum([0, *(len(next(iter(p.values()))) for p in plans)])
    return [
        [_decode(r[a:b], units[v]) for v, a, b in zip(units, sizes[:-1], sizes[1:], strict=True)]
        for r in results
    ]


def _plan(
    value: ir.Value, ids: np.ndarray, base: Mapping[ir.Value, np.ndarray], random: np.random.Generator
) -> dict[ir.Value, np.ndarray]:
    """Samples that show what depends on ``value``: unchanged, then changed for each binary digit."""
    codes, digits = _codes(ids)
    samples = [base[value]]
    for digit in range(digits):
        for wanted in (1, 0):
            chosen = (codes >= 0) & ((codes >> digit & 1) == wanted)
            # Up and down: a maximum only sees what grows, a Relu of something negative neither, and so on.
            samples += [
                np.where(chosen, _changed(base[value], sign, random), base[value]) for sign in (1, -1)
            ]
    stacked = np.stack(samples)
    return {v: stacked if v is value else np.repeat(a[None], len(samples), axis=0) for v, a in base.items()}


def _decode(results: np.ndarray, ids: np.ndarray) -> np.ndarray:
    _, digits = _codes(ids)
    known = np.unique(ids[ids != CONSTANT])
    before, rest = results[0], results[1:].reshape(digits, 2, 2, *results.shape[1:])
    changed = _differs(rest, before).any(axis=2)
    none = ~changed.any(axis=(0, 1))
    single = (changed[:, 0] ^ changed[:, 1]).all(axis=0)
    code = np.tensordot(1 << np.arange(digits), changed[:, 0].astype(np.int64), axes=1)
    single &= code < len(known)
    found = known[np.minimum(code, max(len(known) - 1, 0))] if len(known) else code
    return np.where(none, CONSTANT, np.where(single, found, MIXED))


def _codes(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """The units as 0, 1, ... (CONSTANT stays) and the number of binary digits."""
    known = np.unique(ids[ids != CONSTANT])
    codes = np.where(ids == CONSTANT, -1, np.searchsorted(known, ids))
    return codes, max(1, int(len(known) - 1).bit_length())


def _differs(found: np.ndarray, before: np.ndarray) -> np.ndarray:
    if before.dtype.kind not in "fc":
        return np.asarray(found != before)
    with np.errstate(invalid="ignore"):
        # A batch of another size may round otherwise; a change of all elements of a unit is far larger.
        close = np.abs(found - before) <= _FLOAT_TOLERANCE * (1 + np.abs(before))
    return np.asarray(~(close | (found == before) | (np.isnan(found) & np.isnan(before))))


def random_values(
    value: ir.Value, shape: Sequence[int], random: np.random.Generator, *, least: float = 0.5
) -> np.ndarray:
    """An array that ``value`` may be: of its type, floats from ``least`` to 2, integers from 1 to 8."""
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if np.issubdtype(dtype, np.integer):
        return random.integers(1, 9, shape).astype(dtype)
    return random.uniform(least, 2.0, shape).astype(dtype)


def _changed(array: np.ndarray, sign: int, random: np.random.Generator) -> np.ndarray:
    if array.dtype.kind == "b":
        return ~array
    if array.dtype.kind in "iu":
        return (array + 1 if sign > 0 else np.maximum(array, 1) - 1).astype(array.dtype)
    return (sign * (2 * array + random.uniform(1, 3, array.shape))).astype(array.dtype)
