"""What onnx's converter gets wrong or has no conversion for, rewritten in the old opset before it runs.

Every other operator of the opsets 7 to 12 converts; tests/ir/test_older_opsets.py goes through them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from .names import fresh

_AXIS_OF_ONE_ROW = 13
"""Before this opset Hardmax takes all axes from ``axis`` on as one."""
_RESIZE_ASKS = 11
"""From this opset on Resize says how coordinates are transformed."""
_GLOBAL_LP_LEFT = 22
"""The installed onnxruntime runs no GlobalLpPool of this opset."""


class _Editor:
    """New nodes, constants and names for one graph."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self._taken = {o for n in graph.node for o in n.output} | {i.name for i in graph.input}
        self._taken |= {t.name for t in graph.initializer}
        self.constants = {t.name: t for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def array(self, name: str) -> np.ndarray | None:
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def name(self, stem: str) -> str:
        return fresh(stem, self._taken)

    def constant(self, array: np.ndarray, stem: str) -> tuple[str, NodeProto]:
        name = self.name(stem)
        return name, helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def adapt(proto: onnx.ModelProto, opset: int) -> None:
    """Rewrite, in place, what does not survive the conversion from ``opset`` to the newest."""
    editor = _Editor(proto)
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        rule = None if node.domain else _RULES.get(node.op_type)
        nodes += (rule(node, opset, editor) if rule is not None else None) or [node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def coordinates(before: onnx.ModelProto, after: onnx.ModelProto, opset: int) -> None:
    """Give each Resize of ``after`` the coordinates that Upsample and Resize had before opset 11."""
    if opset >= _RESIZE_ASKS:
        return
    old = {n.output[0] for n in before.graph.node if n.op_type in ("Upsample", "Resize") and not n.domain}
    for node in after.graph.node:
        if node.op_type == "Resize" and node.output[0] in old:
            _set(node, "coordinate_transformation_mode", "asymmetric")
            _set(node, "nearest_mode", "floor")


def _set(node: NodeProto, name: str, value: str) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _attributes(node: NodeProto) -> dict[str, AttributeProto]:
    return {a.name: a for a in node.attribute}


def _hardmax(node: NodeProto, opset: int, editor: _Editor) -> list[NodeProto] | None:
    if opset >= _AXIS_OF_ONE_ROW:
        return None
    given = _attributes(node)
    axis = given["axis"].i if "axis" in given else 1
    shape, flat, hard = (editor.name(f"{node.output[0]}_{part}") for part in ("shape", "flat", "rows"))
    return [
        helper.make_node("Shape", [node.input[0]], [shape]),
        helper.make_node("Flatten", [node.input[0]], [flat], axis=axis),
        helper.make_node("Hardmax", [flat], [hard], name=node.name, axis=1),
        helper.make_node("Reshape", [hard, shape], list(node.output)),
    ]


def _batch_normalization(node: NodeProto, _: int, editor: _Editor) -> list[NodeProto] | None:
    """``spatial=0``: statistics for each element instead of each channel."""
    given = _attributes(node)
    spatial = given.get("spatial")
    if spatial is None or len(node.output) > 1:
        return None
    if spatial.i:
        kept = [a for a in node.attribute if a.name != "spatial"]
        del node.attribute[:]
        node.attribute.extend(kept)
        return None
    arrays = [editor.array(name) for name in node.input[1:5]]
    if any(a is None for a in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    scale = gamma / np.sqrt(variance + (given["epsilon"].f if "epsilon" in given else 1e-5))
    dtype = np.asarray(arrays[0]).dtype
    factor, first = editor.constant(scale.astype(dtype), f"{node.output[0]}_scale")
    shift, second = editor.constant((beta - mean * scale).astype(dtype), f"{node.output[0]}_shift")
    product = editor.name(f"{node.output[0]}_scaled")
    return [
        first,
        second,
        helper.make_node("Mul", [node.input[0], factor], [product], name=node.name),
        helper.make_node("Add", [product, shift], list(node.output)),
    ]


def _global_lp_pool(node: NodeProto, opset: int, editor: _Editor) -> list[NodeProto] | None:
    """The norm over all but the first two axes: those that LpPool's flattened form leaves are not named."""
    if opset >= _GLOBAL_LP_LEFT:
        return None
    given = _attributes(node)
    p = given["p"].i if "p" in given else 2
    if p not in (1, 2):
        return None
    stem = node.output[0]
    rows, made = editor.constant(np.array([0, 0, -1], np.int64), f"{stem}_rows")
    flat, norm, like, shape = (editor.name(f"{stem}_{part}") for part in ("flat", "norm", "like", "shape"))
    return [
        made,
        helper.make_node("Reshape", [node.input[0], rows], [flat]),
        helper.make_node(f"ReduceL{p}", [flat], [norm], name=node.name, axes=[2], keepdims=1),
        # One axis for each spatial axis: a pooling of the same rank says how many.
        helper.make_node("GlobalMaxPool", [node.input[0]], [like]),
        helper.make_node("Shape", [like], [shape]),
        helper.make_node("Reshape", [norm, shape], list(node.output)),
    ]


_RULES: dict[str, Callable[[NodeProto, int, _Editor], list[NodeProto] | None]] = {
    "Hardmax": _hardmax,
    "BatchNormalization": _batch_normalization,
    "GlobalLpPool": _global_lp_pool,
}
