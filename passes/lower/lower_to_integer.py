"""``lower-to-integer``: quantized operators become integer operators, scales move out of the linear part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...analysis.regions.linear import linear_of
from ...analysis.regions.region_analysis import nothing_to_encrypt
from ...analysis.regions.regions import POOLS
from ...analysis.regions.server import server_nodes
from ...ir.graph import variable_inputs
from ...ir.level import Level
from ...ir.movement import CANDIDATES
from ..framework.base import Context, Pass
from .lower import Lowering


@dataclass(frozen=True)
class LowerToInteger(Pass):
    """Rewrite the encrypted part on integers.

    Linear operators run on the integers of their inputs and weights; what they owe to scales and biases moves
    behind them, in front of the next quantizer (where ``fuse-tlu`` makes a table of it) or to the client.
    ``Encrypt`` and ``Decrypt`` mark the encrypted part. Nothing is rounded that the quantized model does not
    round.
    """

    name: ClassVar[str] = "lower-to-integer"
    accepts: ClassVar[tuple[Level, ...]] = (Level.QDQ,)
    produces: ClassVar[Level | None] = Level.INTEGER
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "float"

    def run(self, model: ir.Model, context: Context) -> bool:
        """Lower ``model`` in place.

        Raises:
            UnsupportedError: A linear operator reads a tensor or weights that are not quantized, or there is
                none.
        """
        server = server_nodes(model)
        if not server:
            raise nothing_to_encrypt(model)
        lowering = Lowering(model, {*server, *_from_quantizers(server)}, context)
        for node in list(model.graph):
            lowering.visit(node)
        lowering.finish()
        RemoveUnusedNodesPass()(model)
        return True


def _from_quantizers(server: list[ir.Node]) -> list[ir.Node]:
    """Layout and pooling between a quantizer of the client and the first linear operator: all on integers."""
    found: list[ir.Node] = []
    for node in server:
        path: list[ir.Node] = []
        producer = node.inputs[0].producer() if linear_of(node) and node.inputs[0] is not None else None
        while producer is not None and producer.op_type in CANDIDATES | POOLS:
            read = variable_inputs(producer)
            if len(read) != 1:
                break
            path.append(producer)
            producer = read[0].producer()
        if producer is not None and producer.op_type == "DequantizeLinear":
            found += path
    return found
