"""Operators that plug-ins declare to work element by element, so that a table lookup can replace them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import onnx
from numpy.typing import NDArray

from ..ir.errors import PluginError
from .store import NameStore

Compute = Callable[..., NDArray[Any]]
"""Arrays in, one array of the same shape out; attributes of the node as keywords."""


@runtime_checkable
class HasFunctionProto(Protocol):
    """A function written with onnxscript."""

    def to_function_proto(self) -> onnx.FunctionProto:
        """The function in ONNX."""
        ...


@dataclass(frozen=True)
class TluOperator:
    """An operator that works element by element.

    Attributes:
        domain: ``""`` for ai.onnx.
        op_type: Its name.
        function: Its body as an ONNX function, for an operator of a custom domain.
        compute: Its body in numpy, where there is no ``function``.
    """

    domain: str
    op_type: str
    function: onnx.FunctionProto | None = field(default=None, repr=False)
    compute: Compute | None = field(default=None, repr=False)


registered: NameStore[TluOperator] = NameStore("operator")


def register_tlu_operator(
    domain: str,
    op_type: str,
    body: onnx.FunctionProto | HasFunctionProto | Compute | None = None,
    *,
    owner: str | None = None,
) -> TluOperator:
    """Declare that an operator works element by element on one encrypted input.

    Args:
        domain: Its domain; ``""`` or ``ai.onnx`` for a standard operator.
        op_type: Its name.
        body: What it computes; needed for a custom domain. An ONNX (or onnxscript) function, which
            onnxruntime runs; or a numpy callable, which can fill tables but not run the model in onnxruntime.
        owner: Who declares it; by default the plug-in that is being loaded, else the body's module.

    Raises:
        PluginError: Another owner has declared it, there is no such standard operator, or a body is missing,
            superfluous or for another operator.
    """
    domain = "" if domain == "ai.onnx" else domain
    name = f"{domain}::{op_type}" if domain else op_type
    if domain == "" and not onnx.defs.has(op_type):
        raise PluginError(f"ai.onnx has no operator {op_type!r}", do="give the domain of a custom operator")
    if (domain == "") != (body is None):
        raise PluginError(
            f"a body is given for the standard operator {name}" if body else f"{name} has no body",
            allowed="for a custom domain an ONNX function, an onnxscript function or a numpy callable",
        )
    function, compute = _as_function(body, name)
    if function is not None and (function.domain, function.name) != (domain, op_type):
        raise PluginError(
            f"the body of {name} is for another operator", found=f"{function.domain}::{function.name}"
        )
    operator = TluOperator(domain, op_type, function, compute)
    registered.add(name, operator, owner or getattr(body, "__module__", None) or "unknown")
    return operator


def registered_tlu_operators() -> Mapping[tuple[str, str], TluOperator]:
    """The operators that plug-ins have declared, by (domain, op_type); loads the installed plug-ins."""
    from .plugins import load_installed

    load_installed()
    return {(o.value.domain, o.value.op_type): o.value for o in registered.entries.values()}


def _as_function(body: Any, name: str) -> tuple[onnx.FunctionProto | None, Compute | None]:
    if body is None or isinstance(body, onnx.FunctionProto):
        return body, None
    if isinstance(body, HasFunctionProto):
        return body.to_function_proto(), None
    if callable(body):
        return None, body
    raise PluginError(f"the body of {name} is no function", found=repr(body))
