"""What a model file must not hold, each with an error that names the place."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import defs, numpy_helper

from . import contrib, functions, walk
from .errors import ModelError
from .graph import RANDOM

_TAKES_INFINITY = frozenset({"Clip", "Max", "Min", "Pad", "Where", "Constant", "Greater", "Less", "Equal"})
"""Operators for which a single infinite constant is a way to say "no bound" or "never"."""

_COMPARES = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
"""Operators for which any constant may be infinite: the thresholds of trees that are written as a network."""


def check_content(proto: onnx.ModelProto) -> None:
    """Refuse what onnx-fhe does not read: training information, sparse initializers, random operators.

    Raises:
        ModelError: The model holds one of them.
    """
    if proto.training_info:
        raise ModelError(
            "the model carries training information",
            found=f"{len(proto.training_info)} training graph(s)",
            allowed="an inference model",
            do="export the model for inference",
        )
    sparse = [
        s.values.name or "a constant" for graph in walk.graphs(proto) for s in graph.sparse_initializer
    ] + [
        node.name or "a constant"
        for node in walk.nodes(proto)
        for a in node.attribute
        if a.type in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)
    ]
    if sparse:
        raise ModelError(
            "the model holds sparse tensors",
            found=", ".join(map(repr, sparse[:5])),
            allowed="dense initializers",
            do="export the weights as dense tensors (zeros cost nothing in the circuit)",
        )
    for node in walk.nodes(proto):
        if node.op_type in RANDOM and not node.domain:
            raise ModelError(
                "the model draws random numbers",
                node=_name(node),
                op=node.op_type,
                found=node.op_type,
                allowed="models that give the same answer each time",
                do="export the model for inference (eval mode)",
            )


def check_operators(proto: onnx.ModelProto) -> None:
    """Refuse operators that neither ONNX, the dialect, a plug-in nor the model itself defines.

    onnx.checker accepts any operator of a domain that it does not know.

    Raises:
        ModelError: An operator is not defined.
    """
    imported = {o.domain: o.version for o in proto.opset_import}
    imported.setdefault("", imported.get("ai.onnx", 0))
    local = {(f.domain, f.name) for f in proto.functions}
    for function in proto.functions:
        for o in function.opset_import:
            imported.setdefault(o.domain, o.version)
    for node in walk.nodes(proto):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) in local or functions.body_of(node.domain, node.op_type):
            continue
        if contrib.is_known(domain, node.op_type):
            continue
        # Others may have registered schemas for their domains: onnxruntime still has nothing to run.
        standard = domain in imported and functions.is_standard(domain)
        if standard and defs.has(node.op_type, domain=domain, max_inclusive_version=imported[domain]):
            _check_inputs(node, defs.get_schema(node.op_type, imported[domain], domain))
            continue
        version = f"version {imported[domain]}" if domain in imported else "not imported by the model"
        raise ModelError(
            "the model uses an operator that nothing defines",
            node=_name(node),
            op=node.op_type,
            found=f"{node.op_type} of domain {domain or 'ai.onnx'!r}, {version}",
            allowed="operators of ONNX itself, functions that the file defines, and what plug-ins declare",
            do="export the model with standard ONNX operators, or give its body with a plug-in (--plugin)",
        )


def _check_inputs(node: onnx.NodeProto, schema: defs.OpSchema) -> None:
    """Refuse a gap among inputs of any number: onnx.checker passes it, onnxruntime crashes."""
    last = schema.inputs[-1] if schema.inputs else None
    if last is None or last.option is not defs.OpSchema.FormalParameterOption.Variadic:
        return
    if all(node.input[len(schema.inputs) - 1 :]):
        return
    raise ModelError(
        "an operator of any number of inputs lacks one of them",
        node=_name(node),
        op=node.op_type,
        found=f"{list(node.input).count('')} of {len(node.input)} without a name",
        allowed="a value for each",
        do="export the model again",
    )


def check_onnx(proto: onnx.ModelProto) -> None:
    """Refuse what is not valid ONNX, and weights that are no numbers.

    Raises:
        ModelError: onnx.checker objects, or a weight is NaN or infinite.
    """
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        raise ModelError(
            "the model is not valid ONNX",
            found=_first_lines(str(error)),
            do="export the model again, or mend what the ONNX checker names",
        ) from error
    check_finite(proto)


def check_finite(proto: onnx.ModelProto) -> None:
    """Refuse NaN in any weight, and infinities except as a threshold or a single constant for "no bound".

    Raises:
        ModelError: There is one; the tensor is named.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in walk.nodes(proto):
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in walk.nodes(proto):
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR and not attribute.t.name:
                    attribute.t.name = node.output[0]
        _check_attributes(node)
    for tensor in walk.tensors(proto):
        array = _array(tensor)
        if array is None or np.isfinite(array).all():
            continue
        nans, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        nodes = readers.get(tensor.name, [])
        kinds = {n.op_type for n in nodes}
        compared = bool(kinds) and kinds <= _COMPARES
        if not nans and (compared or (array.size == 1 and kinds <= _TAKES_INFINITY)):
            continue
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ModelError(
            "the model's weights hold values that are no numbers",
            node=_name(nodes[0]) if nodes else "",
            op=nodes[0].op_type if nodes else "",
            found=f"tensor {tensor.name!r}: {nans} NaN, {infinite} infinite of {array.size} values,"
            f" the first at {first}: {array[first]}",
            allowed="finite weights",
            do="train or export the model again; a training run that diverged leaves NaN behind"
            if nans
            else "export the model again; where infinity masks something, write a large number (-10000)",
        )


def _check_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if np.isnan([attribute.f, *attribute.floats]).any():
            raise ModelError(
                "an attribute of the model is no number",
                node=_name(node),
                op=node.op_type,
                found=f"{attribute.name} of {_name(node)!r} holds NaN",
                allowed="numbers",
                do="train or export the model again; a training run that diverged leaves NaN behind",
            )


def _name(node: onnx.NodeProto) -> str:
    """The name of a node, or else of its first output."""
    return node.name or (node.output[0] if node.output else "")


def _array(tensor: onnx.TensorProto) -> np.ndarray | None:
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:
        raise ModelError("a tensor of the model cannot be read", found=f"{tensor.name!r}: {error}") from error
    try:
        np.isfinite(array[:0] if array.ndim else array)
    except TypeError:
        return None  # strings, and number formats that have no infinities
    return array


def _first_lines(text: str, lines: int = 3) -> str:
    kept = [line.strip() for line in text.strip().splitlines() if line.strip()][:lines]
    return " ".join(kept)[:400]
