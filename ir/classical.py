"""Models of scikit-learn: linear ones of domain ai.onnx.ml get a Gemm, what follows stays for the client.

A ``LinearClassifier`` is a matrix product and then rules about labels and scores. The product becomes a Gemm;
the rules stay what they are, as the same operator with an identity matrix for coefficients, so that
onnxruntime keeps deciding about ties, strings and two classes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .errors import UnsupportedError
from .names import fresh

DOMAIN = "ai.onnx.ml"

REFUSED = {
    "TreeEnsemble": "a tree compares inputs with thresholds and follows branches: one bootstrap and more for"
    " every node of every tree",
    "SVM": "its kernel takes products with every support vector, and then a function of each",
    "GaussianProcess": "its kernel takes distances to every sample it was trained on",
}
"""Beginnings of operator names that no circuit is made for, and why."""


def check_classical(proto: onnx.ModelProto) -> None:
    """Refuse models of scikit-learn that are not linear.

    Raises:
        UnsupportedError: A tree, a forest, boosted trees or a kernel machine.
    """
    for node in proto.graph.node:
        reason = next((r for start, r in REFUSED.items() if node.op_type.startswith(start)), None)
        if node.domain == DOMAIN and reason is not None:
            raise UnsupportedError(
                "this kind of model is not computed on encrypted data here",
                node=node.name or (node.output[0] if node.output else ""),
                op=node.op_type,
                found=reason,
                allowed="linear models and multi-layer perceptrons",
                do="compile a student that imitates it (--imitate), or train a linear model or an MLP",
            )


def drop_zip_maps(proto: onnx.ModelProto) -> None:
    """Replace each ZipMap, in place, by what it reads.

    A ZipMap turns a matrix of probabilities into a list of dictionaries. Results are arrays here: the output
    of its name is the matrix, one column for each class.
    """
    for node in proto.graph.node:
        if node.domain == DOMAIN and node.op_type == "ZipMap":
            for output in proto.graph.output:
                if output.name == node.output[0]:
                    matrix = helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None, None])
                    output.CopyFrom(matrix)
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]


def rewrite(proto: onnx.ModelProto) -> None:
    """Give linear models their Gemm and make Scaler arithmetic, in place."""
    if not any(n.domain == DOMAIN for n in proto.graph.node):
        return
    taken = {o for n in proto.graph.node for o in n.output} | {i.name for i in proto.graph.input}
    taken |= {t.name for t in proto.graph.initializer}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        rule = _RULES.get(node.op_type) if node.domain == DOMAIN else None
        nodes += [node] if rule is None else rule(proto, node, taken)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _values(node: NodeProto, name: str) -> list[float]:
    return next((list(a.floats) for a in node.attribute if a.name == name), [])


def _constant(proto: onnx.ModelProto, array: np.ndarray, stem: str, taken: set[str]) -> str:
    name = fresh(stem, taken)
    proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return name


def _linear(proto: onnx.ModelProto, node: NodeProto, taken: set[str]) -> list[NodeProto]:
    is_classifier = node.op_type == "LinearClassifier"
    coefficients = np.array(_values(node, "coefficients"), np.float32)
    biases = _values(node, "intercepts")
    targets = next((a.i for a in node.attribute if a.name == "targets"), 1)
    rows = len(biases) or (1 if is_classifier else targets)
    if not coefficients.size or coefficients.size % rows:
        return [node]
    stem = node.name or node.output[0]
    weight = _constant(proto, coefficients.reshape(rows, -1), f"{stem}.coefficients", taken)
    bias = _constant(proto, np.array(biases or [0.0] * rows), f"{stem}.intercepts", taken)
    post = next((a.s for a in node.attribute if a.name == "post_transform"), b"NONE")
    data = fresh(f"{stem}_float", taken)
    cast = helper.make_node("Cast", [node.input[0]], [data], to=TensorProto.FLOAT)
    last = not is_classifier and post == b"NONE"
    scores = node.output[0] if last else fresh(f"{stem}_scores", taken)
    gemm = helper.make_node("Gemm", [data, weight, bias], [scores], name=node.name, transB=1)
    if last:
        return [cast, gemm]
    rest = NodeProto()
    rest.CopyFrom(node)
    rest.name = f"{stem}_rules"
    rest.input[0] = scores
    kept = [a for a in node.attribute if a.name not in ("coefficients", "intercepts")]
    del rest.attribute[:]
    identity = np.eye(rows, dtype=np.float32).ravel().tolist()
    written = {"coefficients": identity, "intercepts": [0.0] * rows}
    rest.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in written.items())])
    return [cast, gemm, rest]


def _scaler(proto: onnx.ModelProto, node: NodeProto, taken: set[str]) -> list[NodeProto]:
    stem = node.name or node.output[0]
    offset = _constant(proto, np.array(_values(node, "offset") or [0.0]), f"{stem}.offset", taken)
    scale = _constant(proto, np.array(_values(node, "scale") or [1.0]), f"{stem}.scale", taken)
    data, moved = fresh(f"{stem}_float", taken), fresh(f"{stem}_moved", taken)
    return [
        helper.make_node("Cast", [node.input[0]], [data], to=TensorProto.FLOAT),
        helper.make_node("Sub", [data, offset], [moved]),
        helper.make_node("Mul", [moved, scale], list(node.output), name=node.name),
    ]


_AXES_ARE_INPUTS = 18
"""From this opset on reductions take their axes as an input."""


def _normalizer(proto: onnx.ModelProto, node: NodeProto, taken: set[str]) -> list[NodeProto]:
    """Each sample over its norm. onnxruntime's own kernel loses signs where it may overwrite its input."""
    norm = next((a.s for a in node.attribute if a.name == "norm"), b"MAX")
    reduction = {b"L1": "ReduceL1", b"L2": "ReduceL2", b"MAX": "ReduceMax"}.get(norm)
    if reduction is None:
        return [node]
    stem = node.name or node.output[0]
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    data, length, safe = (fresh(f"{stem}_{w}", taken) for w in ("float", "norm", "safe"))
    if opset >= _AXES_ARE_INPUTS:
        axes = fresh(f"{stem}.axes", taken)
        proto.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), axes))
        reduced = helper.make_node(reduction, [data, axes], [length], keepdims=1)
    else:
        reduced = helper.make_node(reduction, [data], [length], keepdims=1, axes=[1])
    nothing = _constant(proto, np.array(1e-37), f"{stem}.nothing", taken)  # zeros stay zeros
    return [
        helper.make_node("Cast", [node.input[0]], [data], to=TensorProto.FLOAT),
        reduced,
        helper.make_node("Add", [length, nothing], [safe]),
        helper.make_node("Div", [data, safe], list(node.output), name=node.name),
    ]


_RULES = {
    "LinearClassifier": _linear,
    "LinearRegressor": _linear,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
