"""Rounding the weights of a layer together, so that errors cancel in the layer's output.

Weights that are exactly zero were pruned, and stay zero. Both minimize (Q s - W) H (Q s - W)^T row by row,
with H the second moment of the layer's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .weights import QuantizedWeight, damped, largest_code, output_error, round_weights

DAMPING = 0.01
"""Share of the mean diagonal added to H (GPTQ's own value)."""
MAX_SWEEPS = 8
"""Times that coordinate descent goes through all weights of a layer."""
MAX_WHOLE_INPUTS = 1024
"""Layers with more inputs are treated in blocks: rank-one updates of matrices that no cache holds would take
minutes."""
BLOCK_INPUTS = 128
"""Inputs of such a block."""
SETTLED_WEIGHT_SHARE = 5e-3
"""Share of a wide layer's weights that may still move when the descent stops."""


@dataclass(frozen=True)
class Factor:
    """What GPTQ needs to know of a second moment, at any scale of the weights.

    Attributes:
        order: Columns in the order that they are rounded in, of their inputs' energy (the paper's
            "act-order").
        upper: U with ``U^T U`` the inverse of the damped moment, in that order.
    """

    order: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, moment: np.ndarray) -> Factor:
        """Of an (in, in) second moment of the inputs."""
        order = np.argsort(-np.diag(moment), kind="stable")
        return cls(order, _factor_of_inverse(damped(moment, DAMPING)[np.ix_(order, order)]))


def gptq(
    weights: np.ndarray, moment: np.ndarray, scale: np.ndarray, bits: int, factor: Factor | None = None
) -> np.ndarray:
    """GPTQ (Frantar et al., 2022, arXiv 2210.17323): round a column, push its error to those to come.

    Args:
        weights: (out, in) float weights.
        moment: (in, in) second moment of the inputs.
        scale: (out) scale of each row.
        bits: Width of the integers.
        factor: Factor of ``moment``, where it is known.

    Returns:
        Integers (out, in).
    """
    factor = factor or Factor.of(moment)
    order, upper = factor.order, factor.upper
    left = weights[:, order].astype(np.float64)
    if len(order) > MAX_WHOLE_INPUTS:
        left, upper = left.astype(np.float32), upper.astype(np.float32)
    pruned = left == 0
    integers = np.zeros(left.shape)
    columns = left.shape[1]
    step = _block(columns)
    for start in range(0, columns, step):
        end = min(start + step, columns)
        errors = np.empty((len(left), end - start), left.dtype)
        for column in range(start, end):
            values = left[:, column]
            rounded = np.where(pruned[:, column], 0.0, round_weights(values[:, None], scale, bits)[:, 0])
            integers[:, column] = rounded
            errors[:, column - start] = error = ((values - rounded * scale) / upper[column, column]).astype(
                left.dtype
            )
            left[:, column:end] -= error[:, None] * upper[column, column:end][None]
        left[:, end:] -= errors @ upper[start:end, end:]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.asarray(integers[:, back])


def _block(columns: int) -> int:
    return columns if columns <= MAX_WHOLE_INPUTS else BLOCK_INPUTS


def _factor_of_inverse(h: np.ndarray) -> np.ndarray:
    """The upper triangular U with ``U^T U`` the inverse of h."""
    if len(h) <= MAX_WHOLE_INPUTS:
        inverse = np.linalg.inv(h)
        return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T)
    # h = V V^T with V upper triangular, from the Cholesky factor of h with its axes turned around; U is the
    # inverse of V. A general inverse takes six times as long.
    turned = np.linalg.cholesky(np.ascontiguousarray(h[::-1, ::-1]))
    return _inverse_upper(np.ascontiguousarray(turned[::-1, ::-1]))


def _inverse_upper(matrix: np.ndarray) -> np.ndarray:
    size = len(matrix)
    if size <= BLOCK_INPUTS:
        return np.asarray(np.triu(np.linalg.inv(matrix)))
    half, found = size // 2, np.zeros_like(matrix)
    found[:half, :half] = _inverse_upper(matrix[:half, :half])
    found[half:, half:] = _inverse_upper(matrix[half:, half:])
    found[:half, half:] = -found[:half, :half] @ matrix[:half, half:] @ found[half:, half:]
    return found


def descend(
    weights: np.ndarray, moment: np.ndarray, start: QuantizedWeight, bits: int, move_scale: bool = True
) -> QuantizedWeight:
    """Coordinate descent: each integer to its best value given all others, and the scale, in turn.

    The error never grows, so this improves on whatever it starts from.

    Args:
        weights: (out, in) float weights.
        moment: (in, in) second moment of the inputs.
        start: Integers and scales to begin with.
        bits: Width of the integers.
        move_scale: Whether the scales may change.
    """
    top = largest_code(bits)
    h = damped(moment, DAMPING)
    diagonal = np.diag(h)
    integers, scale = start.integers.copy(), start.scale.astype(np.float64).copy()
    target, pruned = weights.astype(np.float64) @ h, weights == 0
    order = np.argsort(-diagonal, kind="stable")
    step = _block(len(order))
    for _ in range(MAX_SWEEPS):
        # pull = (W - Q s) H, the negative half gradient of the error.
        product = integers @ h
        moved = 0
        for first in range(0, len(order), step):
            block = order[first : first + step]
            # Transposed: a column of theirs lies together in memory.
            near, inner = product[:, block].T.copy(), h[np.ix_(block, block)]
            aims, before, zero = (
                target[:, block].T.copy(),
                integers[:, block].T.copy(),
                pruned[:, block].T.copy(),
            )
            now = before.copy()
            for place, column in enumerate(block):
                pull = aims[place] - scale * near[place]
                wanted = now[place] + pull / (scale * diagonal[column])
                new = np.where(wanted >= 0, 1.0, -1.0) if bits == 1 else np.clip(np.rint(wanted), -top, top)
                new = np.where(zero[place], 0.0, new)
                change = new - now[place]
                rows = np.flatnonzero(change)
                if len(rows) * 4 > len(change):
                    near += inner[place][:, None] * change[None]
                elif len(rows):
                    near[:, rows] += inner[place][:, None] * change[rows][None]
                now[place] = new
                moved += len(rows)
            integers[:, block] = now.T
            if len(block) == len(order):
                product[:, block] = near.T
            elif not np.array_equal(now, before):
                product += (now - before).T @ h[block]
        if move_scale:
            power = np.einsum("oi,oi->o", product, integers)
            match = np.einsum("oi,oi->o", target, integers)
            better = (power > 0) & (match > 0)
            scale = np.where(better, match / np.where(better, power, 1.0), scale)
        if moved <= (SETTLED_WEIGHT_SHARE * integers.size if len(order) > MAX_WHOLE_INPUTS else 0):
            break
    return QuantizedWeight(integers, scale)


def solve(
    weights: np.ndarray,
    moments: list[np.ndarray],
    start: QuantizedWeight,
    bits: int,
    method: str,
    move_scale: bool = True,
    factors: list[Factor] | None = None,
) -> QuantizedWeight:
    """Round a layer's weights with ``gptq`` or ``descent``, group by group.

    Args:
        weights: (out, in).
        moments: One (in, in) matrix for each group of rows.
        start: Nearest rounding with fitted scales.
        bits: Width of the integers.
        method: ``gptq`` or ``descent``.
        move_scale: Whether the scales may change.
        factors: Factors of ``moments``, where they are known.
    """
    integers, scales = [], []
    rows = np.array_split(np.arange(len(weights)), len(moments))
    made: list[Factor | None] = [*factors] if factors else [None] * len(moments)
    for group, h, factor in zip(rows, moments, made, strict=True):
        part = QuantizedWeight(start.integers[group], start.scale[group])
        if method == "gptq":
            part = QuantizedWeight(gptq(weights[group], h, part.scale, bits, factor), part.scale)
        else:
            pushed = QuantizedWeight(gptq(weights[group], h, part.scale, bits, factor), part.scale)
            errors = [
                output_error(q.integers * q.scale[:, None] - weights[group], [h]) for q in (part, pushed)
            ]
            better = (errors[1] < errors[0])[:, None]
            part = QuantizedWeight(np.where(better, pushed.integers, part.integers), part.scale)
            part = descend(weights[group], h, part, bits, move_scale)
        integers.append(part.integers)
        scales.append(part.scale)
    return QuantizedWeight(np.concatenate(integers), np.concatenate(scales))


def adapt(
    weights: np.ndarray,
    rows: list[np.ndarray],
    wanted: np.ndarray,
    ridge: float,
    moments: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Float weights that do on the quantized inputs what the float layer does on the float inputs.

    Ridge regression of what is missing: the layer's weights move only as far as calibration data supports it.

    Args:
        weights: (out, in) float weights.
        rows: Quantized inputs, one (rows, in) array for each group.
        wanted: (rows, out) the float model's pre-activations.
        ridge: Penalty, as a share of the mean variance of the inputs.
        moments: Covariance of each group's inputs, where it is known: computing it takes most of the time.
    """
    adapted = []
    parts = np.array_split(np.arange(len(weights)), len(rows))
    covariances: list[np.ndarray | None] = [*moments] if moments else [None] * len(rows)
    for group, inputs, known in zip(parts, rows, covariances, strict=True):
        a = inputs - inputs.mean(axis=0)
        if known is not None:
            covariance, aims = known, wanted[:, group] - wanted[:, group].mean(axis=0)
            sides = (a.T @ aims.astype(a.dtype) / len(a)).T - weights[group] @ covariance
        else:
            missing = wanted[:, group] - inputs @ weights[group].T
            missing = missing - missing.mean(axis=0)
            covariance, sides = a.T @ a / len(a), (a.T @ missing / len(a)).T
        penalty = ridge * float(np.diag(covariance).mean()) + 1e-12
        system = covariance + penalty * np.eye(len(covariance))
        adapted.append(weights[group] + _solve_unpruned(system, sides, weights[group] != 0))
    return np.concatenate(adapted)


def _solve_unpruned(system: np.ndarray, sides: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Rows x with ``system x = side`` on the kept entries, and 0 elsewhere."""
    if kept.all():
        return np.asarray(np.linalg.solve(system, sides.T).T)
    result = np.zeros_like(sides)
    for row, side, mask in zip(result, sides, kept, strict=True):
        if mask.any():
            row[mask] = np.linalg.solve(system[np.ix_(mask, mask)], side[mask])
    return result
