"""Shapes of all values, with the batch axis as ``N``."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from .errors import UnsupportedError
from .graph import variable_inputs
from .runtime import Session, skeleton
from .sampling import random_inputs

BATCH = "N"
_TRIED_BATCHES = (2, 3)
"""Sizes of the batch on which a model is run to see which axes follow it."""
_MAX_CONTENT_ELEMENTS = 1024
"""Elements of the largest constants whose content shapes may depend on."""


def infer(model: ir.Model) -> None:
    """Infer the shape of every value of the graph anew.

    onnx infers what it can. Where that leaves an axis open (a Reshape with -1, for example), the model is run
    on two batch sizes: an axis that stays is static, one that follows the batch is ``N``.

    Raises:
        ModelError: onnxruntime cannot run the model.
    """
    declared = {id(o): o.shape for o in model.graph.outputs}
    for node in model.graph:
        for output in node.outputs:
            output.shape = None
    values = [o for n in model.graph for o in n.outputs if o.name]
    _infer(model, values)
    unclear = [v for v in values if not _clear(v) and (v.type is None or isinstance(v.type, ir.TensorType))]
    if unclear:
        _observe(model, unclear)
    for output in model.graph.outputs:
        # A graph output must have a shape, however vague.
        output.shape = output.shape if output.shape is not None else declared[id(output)]


def check_not_empty(model: ir.Model) -> None:
    """Refuse tensors without elements that depend on an input.

    Raises:
        UnsupportedError: There is one.
    """
    values = [*model.graph.inputs, *(o for n in model.graph if variable_inputs(n) for o in n.outputs)]
    for value in values:
        dims = dims_of(value)
        if dims is None or 0 not in dims:
            continue
        node = value.producer()
        raise UnsupportedError(
            "a tensor of the model has no elements",
            node="" if node is None else str(node.name or ""),
            op="" if node is None else node.op_type,
            found=f"{value.name!r} of shape ({', '.join(map(str, dims))})",
            allowed="axes of one element or more",
            do="check what the model cuts off or reduces: with no elements there is nothing to encrypt",
        )


def dims_of(value: ir.Value | None) -> list[int | str | None] | None:
    """The axes of a value: an int, a name, or None where unknown."""
    if value is None or value.shape is None:
        return None
    return [d if isinstance(d, int) else d.value for d in value.shape.dims]


def static_of(value: ir.Value | None) -> list[int] | None:
    """The shape, when every axis is static."""
    dims = dims_of(value)
    return None if dims is None or not all(isinstance(d, int) for d in dims) else [int(str(d)) for d in dims]


def all_known(model: ir.Model) -> bool:
    """Whether every value of the graph has a shape without open axes."""
    return all(_clear(o) for n in model.graph for o in n.outputs if o.name)


def _clear(value: ir.Value) -> bool:
    dims = dims_of(value)
    return dims is not None and all(isinstance(d, int) or d == BATCH for d in dims)


def _infer(model: ir.Model, values: list[ir.Value]) -> None:
    # Not onnx_ir's ShapeInferencePass: it logs a traceback where onnx gives up; _observe does the rest.
    try:
        proto = onnx.shape_inference.infer_shapes(skeleton(model, _MAX_CONTENT_ELEMENTS), data_prop=True)
    except onnx.shape_inference.InferenceError:
        return
    # Read from the protobuf: a whole model made of it again would take most of the time of normalizing.
    known = {v.name: v.type for v in (*proto.graph.value_info, *proto.graph.output)}
    names: dict[str, ir.SymbolicDim] = {}
    for value in values:
        found = known.get(str(value.name))
        if found is None:
            continue
        if found.HasField("tensor_type") and found.tensor_type.HasField("shape"):
            value.shape = ir.Shape([_dim(d, names) for d in found.tensor_type.shape.dim])
        if value.type is None:
            value.type = ir.serde.deserialize_type_proto_for_type(found)


def _dim(dim: onnx.TensorShapeProto.Dimension, names: dict[str, ir.SymbolicDim]) -> int | ir.SymbolicDim:
    if dim.HasField("dim_value"):
        return dim.dim_value
    name = dim.dim_param or None
    if (name or "") not in names:
        names[name or ""] = ir.SymbolicDim(name)
    return names[name or ""]


def _observe(model: ir.Model, values: list[ir.Value]) -> None:
    proto = skeleton(model)
    names = [str(v.name) for v in values]
    session = Session(proto, names)
    runs = [session.run(random_inputs(list(proto.graph.input), size, seed=size)) for size in _TRIED_BATCHES]
    for value in values:
        first, second = (np.shape(r[str(value.name)]) for r in runs)
        value.dtype = value.dtype or ir.DataType.from_numpy(runs[0][str(value.name)].dtype)
        if len(first) == len(second):
            value.shape = ir.Shape([_axis(a, b) for a, b in zip(first, second, strict=True)])


def same_for_all_batches(model: ir.Model, values: list[ir.Value]) -> dict[ir.Value, np.ndarray]:
    """The content of those values that does not change with the batch, nor with the inputs."""
    if not values:
        return {}
    proto = skeleton(model)
    session = Session(proto, [str(v.name) for v in values])
    runs = [session.run(random_inputs(list(proto.graph.input), size, seed=size)) for size in _TRIED_BATCHES]
    found = [[np.asarray(r[str(v.name)]) for r in runs] for v in values]
    return {v: a for v, (a, b) in zip(values, found, strict=True) if np.array_equal(a, b)}


def _axis(first: int, second: int) -> int | str | None:
    if first == second:
        return first
    return BATCH if (first, second) == _TRIED_BATCHES else None


def static_of_sample(value: ir.Value | None) -> list[int] | None:
    """The shape without the batch axis, when every other axis is static."""
    dims = (dims_of(value) or [])[1:]
    return [int(str(d)) for d in dims] if dims and all(isinstance(d, int) for d in dims) else None
