"""Margins by extreme values: what they hold of new samples, with tails of every kind, of few samples too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fhe.analysis.ranges.margins import MAX_MARGIN_SHARE, MIN_MARGIN_SHARE, widened
from onnx_fhe.analysis.ranges.ranges import FREE_WIDTH_RATIO, declare
from onnx_fhe.analysis.ranges.tails import MIN_SAMPLES, Extremes, Tails, distinct

RATE = 1 / 2000
CHANNELS = 30
DRAWS = {
    "bounded": lambda r, n: r.uniform(-1, 1, (n, CHANNELS)),
    "normal": lambda r, n: r.normal(size=(n, CHANNELS)),
    "two groups": lambda r, n: r.normal(size=(n, CHANNELS)) + 8 * (r.random((n, CHANNELS)) < 0.1),
    "one tail": lambda r, n: r.exponential(size=(n, CHANNELS)),
    "both tails": lambda r, n: r.laplace(size=(n, CHANNELS)),
    "scales": lambda r, n: r.normal(size=(n, CHANNELS)) * np.logspace(-1, 3, CHANNELS),
}


def drawn(kind: str, samples: int, seed: int) -> Extremes:
    values = np.rint(100 * DRAWS[kind](np.random.default_rng(seed), samples))
    return Extremes(values, values)


def leaving(new: Extremes, bounds: tuple[np.ndarray, np.ndarray]) -> float:
    return float(((new.low < bounds[0]) | (new.high > bounds[1])).any(axis=1).mean())


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(("samples", "most"), [(20, 0.4), (100, 16 * RATE), (500, 3 * RATE)])
def test_new_samples_stay_inside(kind, samples, most):
    """Fewer samples know less about tails, most of all where one in ten is unlike the others."""
    rates, before = [], []
    for seed in range(5):
        seen, new = drawn(kind, samples, seed), drawn(kind, 4000, 100 + seed)
        rates.append(leaving(new, widened(seen, "auto", RATE)))
        before.append(leaving(new, seen.range))
    assert np.mean(rates) <= most
    assert np.mean(rates) < 0.5 * np.mean(before)


def test_bounded_values_get_less_than_those_with_tails():
    shares = {}
    for kind in ("bounded", "normal", "both tails"):
        seen = drawn(kind, 500, 0)
        (low, high), (_, most) = seen.range, widened(seen, "auto", RATE)
        shares[kind] = float(((most - high) / (high - low)).mean())
    assert MIN_MARGIN_SHARE <= shares["bounded"] < 1.3 * MIN_MARGIN_SHARE
    assert shares["normal"] < shares["both tails"] <= MAX_MARGIN_SHARE + 0.01


@pytest.mark.parametrize("kind", DRAWS)
def test_narrow_tables_get_narrow_margins(kind):
    seen = drawn(kind, 300, 0)
    width = seen.range[1] - seen.range[0]
    spans = []
    for cells in (4, 16, 64, 2**20, None):
        low, high = widened(seen, "auto", RATE, cells)
        spans.append(float(((high - low) / width).mean()))
    assert spans == sorted(spans)
    assert spans[0] < spans[-1] or kind == "bounded"


def _squared_error(new: Extremes, bounds: tuple[np.ndarray, np.ndarray], cells: int) -> float:
    """What a table of ``cells`` entries that copies its input loses: its cells, and what wraps around."""
    low, high = bounds
    width = high - low
    step = width / cells
    read = low + (np.floor((new.low - low) / step) + 0.5) * step
    read = low + np.mod(read - low, width)
    return float((((read - new.low) / width.mean()) ** 2).mean())


@pytest.mark.parametrize("kind", ["bounded", "normal", "one tail", "both tails"])
@pytest.mark.parametrize("cells", [16, 64])
def test_no_fixed_margin_loses_far_less(kind, cells):
    lost = {}
    for margin in ("auto", 0.0, 0.1, 0.2, 0.5, 1.0):
        found = []
        for seed in range(4):
            seen, new = drawn(kind, 300, seed), drawn(kind, 4000, 100 + seed)
            low, high = seen.range
            share = np.abs(high - low).mean()
            bounds = widened(seen, margin, RATE, cells)
            found.append(_squared_error(new, bounds, cells) * ((bounds[1] - bounds[0]).mean() / share) ** 2)
        lost[margin] = np.mean(found)
    assert lost["auto"] < 1.6 * min(lost.values())
    assert lost["auto"] < 0.7 * max(lost.values())


def test_a_heavy_tail_in_one_channel_widens_that_channel_most():
    values = np.rint(100 * np.random.default_rng(0).normal(size=(500, 10)))
    values[:, 3] = np.rint(np.exp(np.random.default_rng(1).normal(size=500) * 1.5) * 50)
    seen = Extremes(values, values)
    (low, high), (_, most) = seen.range, widened(seen, "auto", RATE)
    share = ((most - high) / (high - low))[0]
    assert share[3] == share.max() > 2 * np.median(share)


@pytest.mark.parametrize("samples", [1, 2, MIN_SAMPLES - 1, MIN_SAMPLES, 20])
def test_few_samples_get_wide_margins(samples):
    seen, new = drawn("normal", samples, 0), drawn("normal", 4000, 1)
    low, high = seen.range
    least, most = widened(seen, "auto", RATE)
    assert np.all(least < low)
    assert np.all(most > high)
    if samples >= MIN_SAMPLES:
        assert leaving(new, (least, most)) < 0.05 < leaving(new, seen.range)
    else:
        assert np.all(high - least >= high - low + 100)


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 10**6))
def test_any_samples_at_all(samples, spread, seed):
    """Constants, ties and single samples have bounds too, around what was seen and inside what can happen."""
    values = np.random.default_rng(seed).integers(-spread, spread + 1, (samples, 4)).astype(np.float32)
    seen = Extremes(values, values)
    low, high = widened(seen, "auto", RATE)
    assert np.all(low <= seen.range[0] - 1)
    assert np.all(high >= seen.range[1] + 1)
    assert np.all(high - low <= (1 + 2 * MAX_MARGIN_SHARE) * 2 * spread + 4)
    sound = np.full((1, 4), -4.0), np.full((1, 4), 4.0)
    least, most = declare(sound, seen, "auto")
    assert np.all(
        (sound[0] <= least) & (least <= seen.range[0]) & (seen.range[1] <= most) & (most <= sound[1])
    )


def test_sound_bounds_are_taken_where_they_are_near():
    seen = drawn("bounded", 200, 0)
    low, high = widened(seen, "auto", RATE)
    near, far = (high - low) * (FREE_WIDTH_RATIO - 1) / 2 - 1, (high - low)
    for extra, taken in ((near, True), (far, False)):
        found = declare((low - extra, high + extra), seen, "auto", RATE)
        assert np.array_equal(found[0], low - extra if taken else low)
        assert np.array_equal(found[1], high + extra if taken else high)


def _expected(seen: Extremes, bounds: tuple[np.ndarray, np.ndarray]) -> float:
    """Share of new samples that should leave the bounds."""
    margins = bounds[1] - seen.range[1], seen.range[0] - bounds[0]
    return float(Tails.of(seen).rates(np.concatenate([m.reshape(-1) for m in margins])).sum())


def test_what_was_expected_of_declared_bounds_comes_about():
    """Whatever the margin: the share of new samples that leave is the expected one, to within a factor."""
    for kind in ("normal", "both tails", "scales"):
        expected, found = [], []
        for seed in range(8):
            seen, new = drawn(kind, 500, seed), drawn(kind, 4000, 100 + seed)
            low, high = widened(seen, 0.05, RATE)
            expected.append(_expected(seen, (low, high)))
            found.append(leaving(new, (low, high)))
        assert 0.5 < np.mean(expected) / np.mean(found) < 2.5, kind


def test_bounds_that_nothing_can_leave_are_not_expected_to_be_left():
    seen = drawn("normal", 200, 0)
    assert Tails.of(seen).rates(np.full(2 * CHANNELS, np.inf)).sum() == 0


def test_repeated_samples_are_one():
    rows = np.random.default_rng(0).normal(size=(10, 3))
    data = {"a": np.concatenate([rows, rows[:4]]), "b": np.zeros((14, 1))}
    assert distinct(data).tolist() == list(range(10))
