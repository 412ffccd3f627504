"""What clipping loses on values beyond those that were seen, and ranges that count it."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.passes.quantize.activations import fit_quantizer
from onnx_fhe.passes.quantize.unseen import MIN_ROWS, Unseen


def test_the_loss_is_what_new_values_lose():
    """The mean over draws, of exponential values: they have the very tail that is assumed."""
    rng = np.random.default_rng(0)
    for share in (0.8, 1.0, 1.3):
        told, found = [], []
        for _ in range(300):
            seen, new = rng.exponential(size=(200, 1)), rng.exponential(size=(20000, 1))
            high = seen.max(axis=0) * share
            told.append(Unseen.of(seen, seen).loss(np.zeros(1), high)[0])
            beyond = np.where(new > seen.max(), new - high, 0.0)
            found.append((np.maximum(beyond, 0.0) ** 2).mean())
        assert np.mean(told) == pytest.approx(np.mean(found), rel=0.5)


@pytest.mark.parametrize(
    "values",
    [
        np.clip(np.random.default_rng(0).normal(size=(300, 2)), -1, 1),  # bounded, as after Clip
        np.random.default_rng(0).integers(0, 2, (300, 2)).astype(float),  # conditions
        np.zeros((300, 2)),
        np.full((MIN_ROWS - 1, 2), 3.0),
    ],
)
def test_bounded_values_lose_nothing(values):
    low, high = values.min(axis=0), values.max(axis=0)
    assert np.array_equal(Unseen.of(values, values).loss(low, high), [0.0, 0.0])


@pytest.mark.parametrize("kind", ["exponential", "laplace"])
def test_wide_quantizers_reach_beyond_what_was_seen_where_there_are_tails(kind):
    rng = np.random.default_rng(1)
    seen = getattr(rng, kind)(size=(200, 1))
    wide, narrow = (fit_quantizer(seen, bits, "mse", 99.9, True) for bits in (8, 4))
    assert wide.span[1][0] > seen.max() * 1.02
    assert narrow.span[1][0] < wide.span[1][0]
    assert wide.span[0][0] <= seen.min()


def test_bounded_values_keep_their_range():
    seen = np.clip(np.random.default_rng(2).normal(size=(400, 1)), 0, 1)
    found = fit_quantizer(seen, 8, "mse", 99.9, True)
    assert found.span[1][0] <= 1.01
