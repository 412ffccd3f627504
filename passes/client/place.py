"""``place``: the first or last layers of a network are the client's, by its owner's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...analysis.regions.server import server_nodes
from ...ir.errors import PipelineError
from ...ir.level import Level
from ...ir.placement import is_kept_on_client, keep_on_client
from ...ir.suggest import nearest
from ..framework.base import Context, Pass, option


@dataclass(frozen=True)
class Place(Pass):
    """Give layers of the network to the client, which computes them in the clear and for nothing.

    Without this pass the client quantizes, and computes what comes before the first linear layer and after
    the last. Layers that it gets on top are weights that it can read: the client half holds them. Nothing of
    its data is revealed by that to anybody. Whoever decrypts an inner layer sees more of the network than its
    outputs, too.
    """

    name: ClassVar[str] = "place"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    client_until: tuple[str, ...] = option(
        (),
        help="Nodes that the client computes before it encrypts, by name, with all that they need. It can"
        " read their weights.",
    )
    client_from: tuple[str, ...] = option(
        (),
        help="Nodes that the client computes after it decrypts, by name, with all that needs them. It can"
        " read their weights, and the values that they are given.",
    )

    def run(self, model: ir.Model, context: Context) -> bool:
        """Mark the nodes of ``model`` that are the client's.

        Raises:
            PipelineError: There is no node of that name, or nothing is left to run encrypted.
        """
        before = _marked(model, self._nodes(model, self.client_until, "client-until"), ir.Node.predecessors)
        after = _marked(model, self._nodes(model, self.client_from, "client-from"), ir.Node.successors)
        server = server_nodes(model)
        if (before or after) and not server:
            raise PipelineError(
                "the client would compute the whole network",
                pass_name=self.name,
                found=self.to_text(),
                allowed="at least one linear layer, or another operator, between the client's nodes",
                do="name an earlier node in client-until, or a later one in client-from",
            )
        if before:
            context.notes.append(
                f"place: the client computes {_named(before)} before it encrypts: whoever has the client half"
                " can read the weights of these layers"
            )
        if after:
            context.notes.append(
                f"place: the client computes {_named(after)} after it decrypts: whoever has the client half"
                " can read the weights of these layers and decrypts the values that they are given"
            )
        return bool(before or after)

    def _nodes(self, model: ir.Model, names: Sequence[str], option_name: str) -> list[ir.Node]:
        known = {str(n.name): n for n in model.graph}
        for name in names:
            if name not in known:
                raise PipelineError(
                    f"{option_name} names a node that the network does not have",
                    pass_name=self.name,
                    found=repr(name),
                    allowed=", ".join(known),
                    do=nearest(name, known) or "use the node names that `onnx-fhe inspect` prints",
                )
        return [known[name] for name in names]


def _marked(
    model: ir.Model, nodes: Sequence[ir.Node], around: Callable[[ir.Node], Sequence[ir.Node | None]]
) -> list[ir.Node]:
    """Mark ``nodes`` and all that is reached from them; returns those that were not marked, in order."""
    seen, pending = set(nodes), list(nodes)
    while pending:
        for near in around(pending.pop()):
            if near is not None and near not in seen:
                seen.add(near)
                pending.append(near)
    found = [n for n in model.graph if n in seen and not is_kept_on_client(n)]
    for node in found:
        keep_on_client(node)
    return found


def _named(nodes: Sequence[ir.Node]) -> str:
    shown = [f"{n.name} ({n.op_type})" for n in nodes]
    return ", ".join(shown) if len(shown) <= MAX_SHOWN_NODES else f"{shown[0]} to {shown[-1]}"


MAX_SHOWN_NODES = 4
"""Nodes that a note names each by itself."""
