"""Which weights go: the least important share, of the whole network, a layer or a neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

Scope = Literal["global", "layer", "neuron"]


def keep_counts(
    importance: Mapping[str, np.ndarray], shares: Mapping[str, float], scope: Scope
) -> dict[str, np.ndarray]:
    """How many weights each neuron keeps when the least important share goes.

    Exactly ``round(share * size)`` weights go from the network, each layer or each neuron. Weights that
    are zero already are the least important and count as gone.

    Args:
        importance: (out, in) for each layer; 0 for weights that are zero.
        shares: Share of the weights that goes, by layer. In the global scope layers with the same share are
            ranked together.
        scope: What a share is a share of.

    Returns:
        (out) for each layer.
    """
    if scope == "neuron":
        return {name: _by_row(i, shares[name]) for name, i in importance.items()}
    groups: dict[object, list[str]] = {}
    for name in importance:
        groups.setdefault(shares[name] if scope == "global" else name, []).append(name)
    found: dict[str, np.ndarray] = {}
    for names in groups.values():
        flat = np.concatenate([importance[n].reshape(-1) for n in names])
        kept = largest(flat, len(flat) - round(shares[names[0]] * len(flat)))
        parts = np.split(kept, np.cumsum([importance[n].size for n in names])[:-1])
        found |= {n: p.reshape(importance[n].shape).sum(axis=1) for n, p in zip(names, parts, strict=True)}
    return {name: np.minimum(found[name], (i > 0).sum(axis=1)) for name, i in importance.items()}


def _by_row(importance: np.ndarray, share: float) -> np.ndarray:
    size = importance.shape[1]
    return np.asarray(np.minimum(size - round(share * size), (importance > 0).sum(axis=1)))


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """A mask of the ``count`` largest of a vector; of equals the first."""
    mask = np.zeros(len(values), bool)
    mask[np.argsort(-values, kind="stable")[: max(0, count)]] = True
    return mask


def keep_largest(weights: np.ndarray, counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """The weights with all but the largest ``counts[o]`` of each row o set to zero."""
    masks = np.stack([largest(np.abs(row), int(c)) for row, c in zip(weights, counts, strict=True)])
    return np.where(masks, weights, 0.0)
