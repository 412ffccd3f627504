"""What a file declares of its values, and what its operators make: types and shapes must not contradict."""

from __future__ import annotations

import onnx
from onnx import TensorProto, shape_inference

from .errors import ModelError

MIN_SHAPE_ONLY_ELEMENTS = 1024
"""Elements from which on a constant is only looked at for its shape."""

_INNER = "a value"


def check_declared(proto: onnx.ModelProto) -> None:
    """Refuse values whose declared type or shape is not what operators make, and outputs declared twice.

    Names of axes are not compared, nor what nothing is known of, nor axis 0 of inner values: people free the
    batch of a file, and leave what it says of them.

    Raises:
        ModelError: There is such a value.
    """
    names = [o.name for o in proto.graph.output]
    for name in names:
        if names.count(name) > 1:
            raise _refused("two outputs of the model have one name", repr(name), "a name for each")
    constants = {t.name: t for t in proto.graph.initializer}
    for given in proto.graph.input:
        if given.name in constants and given.type.HasField("tensor_type"):
            tensor = constants[given.name]
            found = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)).tensor_type
            _compare("a weight", given, found, "stored")
    made = _inferred(proto)
    for what, values in (("an output", proto.graph.output), (_INNER, proto.graph.value_info)):
        for value in values:
            if value.type.HasField("tensor_type") and value.name in made:
                _compare(what, value, made[value.name], "computed")


def _compare(what: str, value: onnx.ValueInfoProto, found: onnx.TypeProto.Tensor, how: str) -> None:
    """Refuse ``value`` if its declaration and what was ``found`` cannot both be true."""
    declared, who = value.type.tensor_type, f"{what.split()[-1]} {value.name!r}"
    if found.elem_type and declared.elem_type != found.elem_type:
        kinds = [_kind(t) for t in (declared.elem_type, found.elem_type)]
        raise _refused(
            f"{what} of the model has another type than the file says",
            f"{who}: declared {kinds[0]}, {how} {kinds[1]}",
            "the type that it has",
        )
    first = int(what == _INNER)
    if declared.HasField("shape") and found.HasField("shape") and _contradict(declared, found, first):
        shapes = [_text(t) for t in (declared, found)]
        raise _refused(
            f"{what} of the model has another shape than the file says",
            f"{who}: declared {shapes[0]}, {how} {shapes[1]}",
            "the shape that it has",
        )


def _inferred(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Types of values by ONNX's inference, from inputs and operators alone."""
    light = onnx.ModelProto()
    light.ir_version = max(proto.ir_version, 4)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    light.graph.name = proto.graph.name
    light.graph.node.extend(proto.graph.node)
    constant = {t.name for t in proto.graph.initializer}
    light.graph.input.extend(i for i in proto.graph.input if i.name not in constant)
    for tensor in proto.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if size <= MIN_SHAPE_ONLY_ELEMENTS:
            light.graph.initializer.append(tensor)
        else:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            light.graph.input.append(info)
    for output in proto.graph.output:
        light.graph.output.append(onnx.ValueInfoProto(name=output.name))
    try:
        result = shape_inference.infer_shapes(light, data_prop=True)
    except Exception:  # noqa: BLE001 - what is wrong then, onnxruntime says when it loads the model
        return {}
    known = {v.name: v.type for v in (*result.graph.value_info, *result.graph.output)}
    return {k: t.tensor_type for k, t in known.items() if t.HasField("tensor_type")}


def _contradict(declared: onnx.TypeProto.Tensor, found: onnx.TypeProto.Tensor, first: int) -> bool:
    """Whether two shapes cannot both be true, from axis ``first`` on."""
    mine, theirs = declared.shape.dim, found.shape.dim
    if len(mine) != len(theirs):
        return True
    return any(
        a.HasField("dim_value") and b.HasField("dim_value") and a.dim_value != b.dim_value
        for a, b in zip(mine[first:], theirs[first:], strict=True)
    )


def _kind(number: int) -> str:
    known = number in TensorProto.DataType.values()
    return TensorProto.DataType.Name(number).lower() if known else f"type {number}"


def _text(tensor: onnx.TypeProto.Tensor) -> str:
    dims = (str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return f"({', '.join(dims)})"


def _refused(what: str, found: str, allowed: str) -> ModelError:
    return ModelError(
        what, found=found, allowed=allowed, do="export the model again, or correct what it declares"
    )
