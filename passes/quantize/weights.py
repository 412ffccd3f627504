"""Weight quantization of one linear layer: symmetric, a scale per output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHRINK = np.linspace(0.25, 1.0, 31)
"""Shares of the largest weight that are tried as the clipping point (LOWERING: r)."""

WIDE_INPUTS = 1024
"""Layers with more inputs are fitted in single precision, and to fewer candidates: the best of every
``COARSE_STRIDE``-th, then those around it."""
COARSE_STRIDE = 5
"""Candidates of a wide layer between two that are tried first."""
FLOAT_SUM_SHARE = 2.0**-20
"""What float32 makes of a constant sum may vary by this share of its largest term."""
_CHUNK_ROWS = 4096
"""Rows of wide layers whose products are added up in single precision."""


@dataclass(frozen=True)
class QuantizedWeight:
    """Integers and scales of a weight matrix.

    Attributes:
        integers: (out, in), float64 that holds integers.
        scale: (out), positive; ``integers * scale[:, None]`` approximates the weights.
    """

    integers: np.ndarray
    scale: np.ndarray


def largest_code(bits: int) -> int:
    """Largest absolute integer of a symmetric weight: 2^(bits-1) - 1, and 1 for binary weights."""
    return max(1, (1 << (bits - 1)) - 1)


def candidate_scales(weights: np.ndarray, bits: int, method: str) -> np.ndarray:
    """Scales to try for each channel, (candidates, out).

    Args:
        weights: (out, in) float weights.
        bits: Width of the integers.
        method: ``min-max``: one candidate, the largest weight is the largest integer; else a range of
            clipping points.
    """
    top = np.abs(weights).max(axis=1)
    if bits == 1:
        # +-1 has no zero: the least-squares scale is the mean magnitude.
        return np.asarray(np.abs(weights).mean(axis=1)[None])
    shares = np.ones(1) if method == "min-max" else SHRINK
    return np.asarray(shares[:, None] * top[None] / largest_code(bits))


def powers_of_two(candidates: np.ndarray) -> np.ndarray:
    """The powers of two next to each candidate, (2 * candidates, out)."""
    exponent = np.log2(np.where(candidates > 0, candidates, 1.0))
    around = [np.ceil(exponent - 1e-9), np.floor(exponent + 1e-9)]
    found = np.unique(2.0 ** np.concatenate(around), axis=0)[::-1]
    return np.asarray(np.where(candidates.max(axis=0) > 0, found, 0.0))


def round_weights(weights: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    """Nearest integers within the width, (out, in)."""
    safe = np.where(scale > 0, scale, 1.0)[:, None]
    if bits == 1:
        return np.asarray(np.sign(weights))  # what is exactly zero was pruned, or reads what is not there
    top = largest_code(bits)
    return np.asarray(np.clip(np.rint(weights / safe), -top, top))


def constants(weights: np.ndarray, rows: list[np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """Whether each output never varies: then the offset says what it is, exactly, and its weights are zero.

    Such an output may come from weights of any size (a normalization that divides by next to nothing), whose
    scale would then be the unit of all that is added to it.

    Args:
        weights: (out, in).
        rows: Input rows of each group of output channels, (rows, in) each.
        wanted: (rows, out) the float model's outputs on the same rows.

    Returns:
        (out) booleans.
    """
    blocks = np.array_split(np.abs(weights), len(rows))
    largest = np.concatenate([b @ np.abs(r).max(axis=0) for b, r in zip(blocks, rows, strict=True)])
    return np.asarray(np.ptp(wanted, axis=0) <= FLOAT_SUM_SHARE * largest)


def fit_scales(
    weights: np.ndarray, moments: list[np.ndarray], candidates: np.ndarray, bits: int
) -> QuantizedWeight:
    """For each output channel the candidate scale with the smallest error of the layer's output.

    The error is (Q s - W)^T H (Q s - W) with H the second moment of the layer's inputs (LOWERING, step 1).

    Args:
        weights: (out, in).
        moments: One (in, in) matrix for each group of output channels.
        candidates: (candidates, out) scales.
        bits: Width of the integers.
    """
    best = np.full(len(weights), np.inf)
    scale = candidates[0].copy()
    integers = round_weights(weights, scale, bits)
    wide = weights.shape[1] > WIDE_INPUTS
    index = np.zeros(len(weights), int)
    if wide:
        moments = [m.astype(np.float32) for m in moments]

    def attempt(which: np.ndarray) -> None:
        tried = candidates[which, np.arange(len(weights))]
        rounded = round_weights(weights, tried, bits)
        difference = rounded * tried[:, None] - weights
        error = output_error(difference.astype(np.float32) if wide else difference, moments)
        better = error < best
        best[better], scale[better], index[better] = error[better], tried[better], which[better]
        integers[better] = rounded[better]

    count = len(candidates)
    for which in range(0, count, COARSE_STRIDE if wide else 1):
        attempt(np.full(len(weights), which))
    if wide and count > 1:
        around = index.copy()
        for offset in (-2, -1, 1, 2):
            attempt(np.clip(around + offset, 0, count - 1))
    return QuantizedWeight(integers, without_zeros(scale))


def without_zeros(scale: np.ndarray) -> np.ndarray:
    """Scales (out) of which those of channels without weights, 0, are the smallest of the others; 1 if none.

    What later passes do to such a channel's integers, rounding them among other things, counts in its scale.
    """
    positive = scale[scale > 0]
    return np.where(scale > 0, scale, positive.min() if positive.size else 1.0)


def output_error(difference: np.ndarray, moments: list[np.ndarray]) -> np.ndarray:
    """d^T H d for every row d of (out, in), with the H of the row's group: (out)."""
    blocks = np.array_split(difference, len(moments))
    return np.concatenate([np.einsum("oi,oi->o", b @ h, b) for b, h in zip(blocks, moments, strict=True)])


def damped(moment: np.ndarray, share: float) -> np.ndarray:
    """A second moment that can be inverted: inputs that calibration never showed do not run away.

    Args:
        moment: (in, in) of a layer's inputs.
        share: The share of the mean of the diagonal that is added to the diagonal.
    """
    mean = float(np.diag(moment).mean())
    return np.asarray(moment + np.eye(len(moment)) * (share * mean + 1e-12))


def moment(rows: np.ndarray) -> np.ndarray:
    """Second moment of input rows (rows, in), normalized by their number."""
    if rows.shape[1] > WIDE_INPUTS:
        found = np.zeros((rows.shape[1], rows.shape[1]))
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows[start : start + _CHUNK_ROWS].astype(np.float32)
            found += part.T @ part
        return np.asarray(found / max(1, len(rows)))
    rows = rows.astype(np.float64)
    return np.asarray(rows.T @ rows / max(1, len(rows)))


def products(rows: np.ndarray, integers: np.ndarray) -> np.ndarray:
    """Accumulators; in single precision where there are many, as they only serve a fit."""
    return np.asarray(rows @ (integers.T.astype(rows.dtype) if rows.shape[1] > WIDE_INPUTS else integers.T))


def refit(
    accumulators: np.ndarray, wanted: np.ndarray, scale: np.ndarray, gain: bool = True, step: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares gain and offset of each channel (LOWERING, step 2).

    Args:
        accumulators: (rows, out) integer accumulators on the inputs that the quantized layers before produce.
        wanted: (rows, out) the float model's pre-activations on the same rows.
        scale: (out) the gain where the fit is degenerate or would flip the sign.
        gain: Whether the gain may move; otherwise only the offset is fitted.
        step: What one integer of the accumulators is worth in them: a channel that varies by less than half
            of that says nothing about its gain.

    Returns:
        Gain and offset, (out) each.
    """
    # In double precision: a mean may be a million times what varies around it.
    mean_a, mean_z = (a.mean(axis=0, dtype=np.float64) for a in (accumulators, wanted))
    fitted = scale.astype(np.float64)
    if gain and len(accumulators) > 2:
        a, z = accumulators - mean_a, wanted - mean_z
        variance = (a * a).mean(axis=0)
        slope = (a * z).mean(axis=0) / np.where(variance > 0, variance, 1.0)
        trusted = (variance > 0.25 * step**2) & (slope > 0.25 * scale) & (slope < 4.0 * scale)
        fitted = np.where(trusted, slope, fitted)
    return fitted, mean_z - fitted * mean_a
