"""A plan as a function that Concrete traces."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from concrete import fhe
from concrete.fhe.extensions.tag import tag_context

from ...ir.dialect import DOMAIN
from . import arithmetic, layout, linear, lookup
from .plan import Plan
from .scope import Emission, Scope, Traced, refuse

_EMISSIONS: dict[str, dict[str, Emission]] = {
    "": linear.EMIT | arithmetic.EMIT | layout.EMIT,
    DOMAIN: lookup.EMIT,
}


def emission_of(node: ir.Node) -> Emission:
    """How ``node`` is emitted.

    Raises:
        UnsupportedError: Concrete has no such operator.
    """
    found = _EMISSIONS.get(node.domain, {}).get(node.op_type)
    if found is None:
        allowed = sorted(name for family in _EMISSIONS.values() for name in family)
        raise refuse(
            node,
            "this operator does not run encrypted",
            allowed=", ".join(allowed),
            do="put it before the encryption or after the decryption, or have it fused into a table",
        )
    return found


class Emitter:
    """Emits a plan; ``scope`` holds what the last trace made."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scope = Scope(plan)

    def parameters(self) -> dict[str, str]:
        """Concrete's parameter names, in the order of the plan's inputs; never names from the model."""
        return {f"x{i}": "encrypted" for i in range(len(self.plan.inputs))}

    def function(self) -> Callable[..., Any]:
        """A function of the parameters that emits the plan; to be traced in this thread."""
        if not hasattr(tag_context, "stack"):
            # Concrete makes it in the thread that imported it only.
            tag_context.stack = []

        def circuit(*args: Traced, **kwargs: Traced) -> Any:
            return self._emit([*args, *kwargs.values()])

        # Concrete reads the parameters from the signature.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [inspect.Parameter(name, kind) for name in self.parameters()]
        circuit.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        return circuit

    def _emit(self, arguments: list[Traced]) -> Any:
        scope = self.scope = Scope(self.plan)
        graph = self.plan.server.graph
        scope.values.update(zip(graph.inputs, arguments, strict=True))
        for node in graph:
            with fhe.tag(self.plan.tag(node)):
                scope.values[node.outputs[0]] = emission_of(node)(scope, node)
        outputs = tuple(scope.values[v] for v in graph.outputs)
        return outputs if len(outputs) > 1 else outputs[0]
