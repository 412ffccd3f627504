"""The rules that a model of each level keeps; a broken one is a defect of the pass that ran before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from . import verify_integer
from .dialect import DOMAIN
from .errors import ModelError, VerificationError
from .level import Level, level_of
from .ops import DequantizeLinear, QuantizeLinear
from .runtime import skeleton, to_proto
from .state import ModelState

_MAX_CHECKED_ELEMENTS = 64
"""Elements of constants that are looked at between two passes."""
_EVERYWHERE_EXPLICIT = {"pads", "strides", "dilations", "group", "kernel_shape"}
_WEIGHT_TYPES = (ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32)
"""int16 for 8-bit weights whose zero point was taken off: 9 bits."""


def verify(model: ir.Model, *, whole: bool = True) -> None:
    """Check ``model`` against the rules of its level (docs/design/architecture.md).

    Every level: valid ONNX, a unique name on every node. ``float`` and ``qdq`` models that ``normalize`` has
    seen: the canonical form. ``qdq``: int8 weights, positive finite scales. ``integer``: see
    ``verify_integer``.

    Args:
        model: The model.
        whole: Have onnx look at large constants and at inferred shapes, too. Nothing of onnx_ir can make
            these malformed, and to write all weights takes longer than all other checks of a stage.

    Raises:
        VerificationError: A rule is broken; the node is named.
        LimitError: A value of the encrypted part may be too large for exact float32 arithmetic.
    """
    _check_names(model)
    _check_onnx(model, whole)
    level = level_of(model)
    canonical = ModelState.of(model).normalized
    if level is not Level.INTEGER:
        for node in model.graph:
            if node.domain == DOMAIN:
                raise broken(node, "an operator of the integer level in a model of another", f"{level} level")
    if canonical and level is not Level.INTEGER:
        _check_canonical(model)
    if level is Level.QDQ:
        _check_qdq(model, canonical)
    if level is Level.INTEGER:
        verify_integer.check(model)


def verify_given(model: ir.Model) -> None:
    """``verify`` for a model as it comes from outside, where no pass of ours is to blame.

    Raises:
        ModelError: A rule is broken; the node is named.
        LimitError: see ``verify``.
    """
    try:
        verify(model)
    except VerificationError as error:
        raise ModelError(
            f"the model breaks a rule of the {level_of(model)} level",
            found=f"{error.what}: {error.found}",
            allowed=error.allowed,
            node=error.where.node,
            op=error.where.op,
        ) from error


def broken(node: ir.Node, rule: str, found: str, allowed: str = "") -> VerificationError:
    """The error for a rule that ``node`` breaks."""
    return VerificationError(rule, node=node.name or "", op=node.op_type, found=found, allowed=allowed)


def _check_names(model: ir.Model) -> None:
    seen: set[str] = set()
    for node in RecursiveGraphIterator(model.graph):
        if not node.name:
            raise broken(
                node, "a node has no name", f"outputs {[o.name for o in node.outputs]}", "a unique name"
            )
        if node.name in seen:
            raise broken(node, "two nodes have the same name", repr(node.name), "a unique name")
        seen.add(node.name)


def _check_onnx(model: ir.Model, whole: bool) -> None:
    try:
        # Functions of a model's own stand in the whole of it only.
        complete = whole or model.functions
        onnx.checker.check_model(to_proto(model) if complete else _without_weights(model))
    except Exception as error:
        raise VerificationError("the model is not valid ONNX", found=str(error).strip()[:400]) from error


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with large constants among its inputs, and without the shapes of what is between."""
    proto = skeleton(model, _MAX_CHECKED_ELEMENTS)
    for written, value in zip(proto.graph.output, model.graph.outputs, strict=True):
        written.CopyFrom(ir.serde.serialize_value(value))
    return proto


def _check_canonical(model: ir.Model) -> None:
    rules: dict[str, Callable[[ir.Node], VerificationError | None]] = {
        "Constant": lambda n: broken(n, "a constant is no initializer", "Constant"),
        "Dropout": lambda n: broken(n, "a Dropout is left", "Dropout"),
        "Identity": _identity,
        "Gemm": _gemm,
        "Conv": _conv,
    }
    for node in model.graph:
        if not node.domain and node.op_type in rules and (error := rules[node.op_type](node)):
            raise error


def _identity(node: ir.Node) -> VerificationError | None:
    value, result = node.inputs[0], node.outputs[0]
    # A graph output that is a graph input or an initializer can be written in no other way.
    if (
        result.is_graph_output()
        and value is not None
        and (value.producer() is None or value.is_graph_output())
    ):
        return None
    return broken(node, "an Identity is left", "Identity")


def _gemm(node: ir.Node) -> VerificationError | None:
    defaults: dict[str, float] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    wanted = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    found = {k: node.attributes[k].value if k in node.attributes else v for k, v in defaults.items()}
    if found != wanted:
        return broken(node, "a Gemm is not in its one form", str(found), str(wanted))
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return broken(node, "a Gemm has no bias", "2 inputs", "Gemm(x, W, b)")
    return None


def _conv(node: ir.Node) -> VerificationError | None:
    missing = sorted(_EVERYWHERE_EXPLICIT - set(node.attributes))
    if missing or "auto_pad" in node.attributes:
        return broken(
            node, "a Conv has attributes left open", ", ".join(missing) or "auto_pad", "explicit ones"
        )
    return None


def _check_qdq(model: ir.Model, canonical: bool) -> None:
    for node in model.graph:
        if node.domain or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        value, scale = node.inputs[0], node.inputs[1]
        if scale is not None and scale.is_initializer() and scale.const_value is not None:
            array = np.asarray(scale.const_value.numpy(), np.float64)
            if not (np.isfinite(array).all() and (array > 0).all()):
                raise broken(
                    node, "a scale is not positive and finite", f"{scale.name!r}: {array.min()}", "> 0"
                )
            _check_axis(QuantizeLinear.match(node) or DequantizeLinear.of(node), value, array)
        elif canonical:
            raise broken(node, "a scale is computed", repr(scale.name if scale else None), "an initializer")
        is_weight = node.op_type == "DequantizeLinear" and value is not None and value.is_initializer()
        if canonical and is_weight and value is not None and value.dtype not in _WEIGHT_TYPES:
            raise broken(node, "a weight is not int8", str(value.dtype), "int8 (int32 for a bias)")


def _check_axis(
    quantizer: QuantizeLinear | DequantizeLinear, value: ir.Value | None, scale: np.ndarray
) -> None:
    if scale.size == 1 or value is None or value.shape is None or quantizer.block_size:
        return
    node, axis = quantizer.node, quantizer.axis
    size = value.shape[axis] if -len(value.shape) <= axis < len(value.shape) else None
    if isinstance(size, int) and size != scale.size:
        raise broken(
            node, "scales and channels differ in number", f"{scale.size} for {size}", "one per channel"
        )
