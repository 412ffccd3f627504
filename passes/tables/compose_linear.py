"""``compose-linear``: linear operators with nothing between them that is not linear become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...analysis.regions.linear import linear_of
from ...ir.integer_editing import IntegerEditor
from ...ir.level import Level, level_of
from ..framework.base import Context, Pass, option
from ..framework.rewriting import Refusal, Rewrite, apply_greedily
from .common import compose, pricing
from .common.average import Average, find_average, replace_average
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
            return pricing.improve(model, [Compose], _linear)
        return _compose_float(model, self.growth)


def _linear(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if linear_of(n) is not None]


Composed = tuple[ir.Node, compose.Composition]
"""The second operator, and what stands in its place."""


class Compose(pricing.TableRewrite[Composed]):
    """A linear operator takes in the one that it reads."""

    name: ClassVar[str] = "compose"

    def match(self, node: ir.Node) -> Composed | Refusal | None:
        """The composition, where its integer weights stay exact in float32."""
        if linear_of(node) is None:
            return None
        found = compose.find(node, self.circuit.moves)
        if found is None:
            return Refusal("it reads no linear operator that it composes with")
        if not found.exact(node):
            return Refusal("the composed weights would not be exact in float32")
        return node, found

    def apply(self, match: Composed) -> None:
        """Put the composition in the place of the second operator."""
        compose.apply(*match, self.circuit.editor())


class AveragePooling(Rewrite[Average]):
    """Average pooling goes into the convolution before it.

    Args:
        model: Float level.
        growth: Most weights, over those of the convolution.
    """

    name: ClassVar[str] = "average-pooling"

    def __init__(self, model: ir.Model, growth: float) -> None:
        self.model, self.growth = model, growth

    def match(self, node: ir.Node) -> Average | None:
        """The convolution and the pooling."""
        return find_average(node, self.growth)

    def apply(self, match: Average) -> None:
        """Put one convolution in the place of both."""
        replace_average(match, IntegerEditor(self.model))


class ComposeFloat(Rewrite[Composed]):
    """A linear operator of a float model takes in the one that it reads.

    Args:
        model: Float level.
        growth: Most weights, over those of both operators.
    """

    name: ClassVar[str] = "compose"

    def __init__(self, model: ir.Model, growth: float) -> None:
        self.model, self.growth = model, growth
        self.moves = Moves(model.graph.opset_imports.get("", 21))

    def match(self, node: ir.Node) -> Composed | Refusal | None:
        """The composition, where it is small enough and its addend can be a bias."""
        if linear_of(node) is None:
            return None
        found = compose.find(node, self.moves)
        if found is None:
            return Refusal("it reads no linear operator that it composes with")
        if found.weight.size > self.growth * found.weights:
            return Refusal("the composed operator would have too many weights")
        if not found.fits_bias(node):
            return Refusal("what is added differs within a channel, so it is no bias")
        return node, found

    def apply(self, match: Composed) -> None:
        """Put the composition in the place of the second operator."""
        compose.apply(*match, IntegerEditor(self.model))


def _compose_float(model: ir.Model, growth: float) -> bool:
    rewrites: list[Rewrite[Any]] = [AveragePooling(model, growth), ComposeFloat(model, growth)]
    modified = False
    # From the first node again after each change: what is composed may compose with what stood before.
    while any(apply_greedily([node], rewrites) for node in model.graph):
        RemoveUnusedNodesPass()(model)
        modified = True
    return modified
