"""Operators that plug-ins declare, each with a body: models may use them, table lookups replace them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import onnx

from .. import functions
from ..errors import PluginError
from .store import NameStore


@runtime_checkable
class HasFunctionProto(Protocol):
    """A function written with onnxscript."""

    def to_function_proto(self) -> onnx.FunctionProto:
        """The function in ONNX."""
        ...


Body = TypeVar("Body", bound="onnx.FunctionProto | HasFunctionProto")

registered: NameStore[onnx.FunctionProto] = NameStore("operator")


def register_tlu_operator(body: Body, *, owner: str | None = None) -> Body:
    """Declare an operator of a custom domain; also as a decorator above ``@onnxscript.script(...)``.

    Models that use it then load, run in onnxruntime, and are saved with its body. Where it works element by
    element on one encrypted tensor (found out by running it) it becomes part of a table. ONNX's own operators
    need no declaration.

    Args:
        body: An ONNX function or an onnxscript function; its domain and name are the operator's.
        owner: Who declares it; by default the plug-in that is being loaded, else the body's module.

    Returns:
        ``body``.

    Raises:
        PluginError: Another owner has declared the operator, or the body is no function, has not one output,
            belongs to a domain of ONNX or onnx-fhe, or is not valid in the opset that models are kept in.
    """
    function = _as_function(body)
    name = f"{function.domain}::{function.name}"
    if functions.is_standard(function.domain):
        raise PluginError(
            f"{name or function.name} cannot be declared: its domain is taken",
            found=repr(function.domain),
            allowed="a domain of your own, such as 'org.example'",
            do="leave it out: any operator of ONNX that works element by element becomes a table by itself",
        )
    if len(function.input) < 1 or len(function.output) != 1:
        raise PluginError(
            f"{name} cannot work element by element",
            found=f"{len(function.input)} inputs, {len(function.output)} outputs",
            allowed="one output, and at least one input",
        )
    functions.check(function)
    registered.add(name, function, owner or getattr(body, "__module__", None) or "unknown")
    return body


def registered_tlu_operators() -> Mapping[tuple[str, str], onnx.FunctionProto]:
    """Bodies of the operators that plug-ins have declared, by (domain, name); loads installed plug-ins."""
    from .loading import load_installed

    load_installed()
    return {(o.value.domain, o.value.name): o.value for o in registered.entries.values()}


def _as_function(body: object) -> onnx.FunctionProto:
    if isinstance(body, onnx.FunctionProto):
        return body
    if isinstance(body, HasFunctionProto):
        return body.to_function_proto()
    raise PluginError(
        "the body of an operator is no function",
        found=repr(body),
        allowed="an onnx.FunctionProto, or a function written with onnxscript",
        do="write it with onnxscript: onnxruntime must be able to run it",
    )
