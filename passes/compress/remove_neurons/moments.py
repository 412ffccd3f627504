"""Second moments of what a linear operator reads and should produce, and the fit that follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....analysis.regions.linear import Linear

MIN_RIDGE = 1e-9
"""Least ridge, as a share of the mean diagonal: without any, the system of dependent units has no
solution."""


@dataclass
class Moments:
    """Means and centred second moments of inputs x and targets z, for one group of a linear operator.

    Attributes:
        x_mean: (in)
        z_mean: (out)
        xx: (in, in), divided by the number of rows.
        xz: (in, out), divided by the number of rows.
        zz: (out), the variances of the targets.
    """

    x_mean: np.ndarray
    z_mean: np.ndarray
    xx: np.ndarray
    xz: np.ndarray
    zz: np.ndarray


def moments_of(linear: Linear, data: np.ndarray, targets: np.ndarray, seed: int) -> list[Moments]:
    """Moments for each group of a linear operator.

    Args:
        linear: The operator.
        data: What it reads, samples on axis 0.
        targets: What it should produce (its pre-activations), of the shape of its output.
        seed: Seeds the choice of rows where there are very many.
    """
    groups, (wanted,) = linear.rows(data, targets, seed=seed)
    size = linear.channels // linear.groups
    found = []
    for group, rows in enumerate(groups):
        x = rows.astype(np.float64)
        z = wanted[:, group * size : (group + 1) * size].astype(np.float64)
        x_mean, z_mean = x.mean(axis=0), z.mean(axis=0)
        x, z = x - x_mean, z - z_mean
        n = len(x)
        found.append(Moments(x_mean, z_mean, x.T @ x / n, x.T @ z / n, (z**2).mean(axis=0)))
    return found


def damping(xx: np.ndarray, ridge: float) -> float:
    """The ridge in the units of the second moments; never 0, for inputs may depend on each other."""
    alive = np.diag(xx)[np.diag(xx) > 0]
    return max(ridge, MIN_RIDGE) * float(alive.mean()) if len(alive) else 1.0


def fit(moments: Moments, start: np.ndarray, free: np.ndarray, ridge: float) -> np.ndarray:
    """Weights (out, in) that fit the targets best: the ridge pulls them towards ``start``.

    Args:
        moments: Moments of inputs and targets.
        start: (out, in); where ``free`` is false the weight is zero.
        free: (in), the inputs that may have weights.
        ridge: Strength of the pull, relative to the mean variance of the inputs.
    """
    result = np.zeros_like(start)
    xx = moments.xx[np.ix_(free, free)]
    if not len(xx):
        return result
    damped = xx + damping(xx, ridge) * np.eye(len(xx))
    residual = moments.xz[free] - xx @ start[:, free].T
    result[:, free] = start[:, free] + np.linalg.solve(damped, residual).T
    return result
