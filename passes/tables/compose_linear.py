"""``compose-linear``: linear operators with nothing between them that is not linear become one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...analysis.regions.linear import linear_of
from ...ir.integer_editing import IntegerEditor
from ...ir.level import Level, level_of
from ..framework.base import Context, Pass, option
from .common import compose, pricing
from .common.average import find_average, replace_average
from .common.moves import Moves


@dataclass(frozen=True)
class ComposeLinear(Pass):
    """Compose linear operators, so that no table has to requantize between them.

    Dense layers with what is linear before them (through layout and constants), convolutions where one has a
    kernel of a single point, and convolutions with average pooling behind them. Concrete also takes the noise
    of summands to be independent, which it is not between two linear operators in a row.
    """

    name: ClassVar[str] = "compose-linear"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.INTEGER)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "float"

    growth: float = option(
        2.0,
        help="Most weights that the composed operator may have, over those of the operators it replaces.",
        low=0,
    )

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Compose the linear operators of ``model`` in place."""
        if level_of(model) is Level.INTEGER:
            return pricing.improve(model, _Compositions, _linear)
        return _compose_float(model, self.growth)


def _linear(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if linear_of(n) is not None]


class _Compositions(pricing.Finder):
    def __call__(self, node: ir.Node) -> pricing.Rewrite | None:
        found = compose.find(node, self.moves)
        if found is None or not found.exact(node):
            return None
        return lambda: compose.apply(node, found, IntegerEditor(self.model))


def _compose_float(model: ir.Model, growth: float) -> bool:
    moves = Moves(model.graph.opset_imports.get("", 21))
    modified = False
    while (
        rewrite := next((r for n in model.graph if (r := _rewrite(model, n, growth, moves))), None)
    ) is not None:
        rewrite()
        RemoveUnusedNodesPass()(model)
        modified = True
    return modified


def _rewrite(model: ir.Model, node: ir.Node, growth: float, moves: Moves) -> Callable[[], None] | None:
    if (average := find_average(node, growth)) is not None:
        return lambda: replace_average(average, IntegerEditor(model))
    found = compose.find(node, moves)
    if found is None or found.weight.size > growth * found.weights or not found.fits_bias(node):
        return None
    return lambda: compose.apply(node, found, IntegerEditor(model))
