"""Random networks for property tests: those of ``onnx_fhe.testing``, with hypothesis making the decisions.

``networks()`` is a strategy of models, so what fails shrinks; ``STEPS`` names what a network may be built of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import onnx
from hypothesis import strategies as st

from onnx_fhe.testing.networks import STEPS, grown

T = TypeVar("T")
Draw = Callable[[Any], Any]
PLAIN = ("linear", "element-wise", "join", "pool", "layout")


class Drawn:
    """Decisions that hypothesis makes, and makes simpler where a test fails."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def whole(self, low: int, high: int) -> int:
        """An integer between both bounds."""
        return int(self._draw(st.integers(low, high)))

    def pick(self, options: Sequence[T]) -> T:
        """One of several."""
        return self._draw(st.sampled_from(list(options)))  # type: ignore[no-any-return]

    def chance(self, share: float) -> bool:
        """True for about this share of the draws."""
        return bool(self._draw(st.integers(0, 99)) >= 100 * (1 - share))


@st.composite
def networks(draw: Draw, steps: tuple[str, ...] = PLAIN, longest: int = 5) -> onnx.ModelProto:
    """A network from ``input`` to one output of three numbers.

    Args:
        draw: Given by hypothesis.
        steps: What stands between the first and the last layer, of ``STEPS``.
        longest: Most steps between.
    """
    assert set(steps) <= set(STEPS)
    return grown(Drawn(draw), steps, longest)
