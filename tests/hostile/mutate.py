"""Mutations of model files: of bytes, and of the protobuf that they stand for. The seed alone decides."""

from __future__ import annotations

import random

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31 - 1, -(2**31), 2**62, -(2**63))
_OPERATORS = (
    "Relu",
    "Add",
    "MatMul",
    "Reshape",
    "Expand",
    "Concat",
    "Softmax",
    "Conv",
    "Cast",
    "If",
    "Nope",
    "",
)


def mutate(content: bytes, random_: random.Random) -> bytes:
    """One to four mutations of ``content``; half of them keep it a protobuf."""
    for _ in range(random_.randint(1, 4)):
        content = (_structure if random_.random() < 0.5 else _bytes)(content, random_)
    return content


def _bytes(content: bytes, random_: random.Random) -> bytes:
    if not content:
        return b"\x08\x08"
    at = random_.randrange(len(content))
    kind = random_.randrange(4)
    if kind == 0:
        return content[:at] + bytes([content[at] ^ 1 << random_.randrange(8)]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + random_.randbytes(random_.randint(1, 4)) + content[at:]
    if kind == 2:
        return content[:at] + content[at + random_.randint(1, 8) :]
    end = min(len(content), at + random_.randint(1, 64))
    return content[:end] + content[at:end] + content[end:]


def _structure(content: bytes, random_: random.Random) -> bytes:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
        if proto.graph.node:
            random_.choice((_node, _node, _attribute, _tensor, _value, _head))(proto, random_)
        return bytes(proto.SerializeToString())
    except (DecodeError, ValueError, TypeError, IndexError):
        return _bytes(content, random_)


def _node(proto: onnx.ModelProto, random_: random.Random) -> None:
    nodes = proto.graph.node
    node = random_.choice(nodes)
    kind = random_.randrange(5)
    names = [o for n in nodes for o in n.output] + [i.name for i in proto.graph.initializer] + ["", "x"]
    if kind == 0:
        node.op_type = random_.choice(_OPERATORS)
    elif kind == 1 and node.input:
        node.input[random_.randrange(len(node.input))] = random_.choice(names)
    elif kind == 2 and node.output:
        node.output[random_.randrange(len(node.output))] = random_.choice(names)
    elif kind == 3:
        nodes.add().CopyFrom(node)
    else:
        del nodes[random_.randrange(len(nodes))]


def _attribute(proto: onnx.ModelProto, random_: random.Random) -> None:
    found = [a for n in proto.graph.node for a in n.attribute]
    if not found:
        return
    attribute = random_.choice(found)
    attribute.i = random_.choice(_NUMBERS)
    attribute.f = random_.choice((0.0, -1.0, 1e38, float("inf"), 1e-40))
    if attribute.ints:
        attribute.ints[random_.randrange(len(attribute.ints))] = random_.choice(_NUMBERS)
    if random_.random() < 0.2:
        attribute.type = random_.randrange(12)


def _tensor(proto: onnx.ModelProto, random_: random.Random) -> None:
    if not proto.graph.initializer:
        return
    tensor = random_.choice(proto.graph.initializer)
    kind = random_.randrange(4)
    if kind == 0 and tensor.dims:
        tensor.dims[random_.randrange(len(tensor.dims))] = random_.choice(_NUMBERS)
    elif kind == 1:
        tensor.data_type = random_.choice([*TensorProto.DataType.values(), 99])
    elif kind == 2:
        tensor.raw_data = random_.randbytes(len(tensor.raw_data))
    else:
        random_.shuffle(dims := list(tensor.dims))
        tensor.dims[:] = dims


def _value(proto: onnx.ModelProto, random_: random.Random) -> None:
    value = random_.choice([*proto.graph.input, *proto.graph.output, *proto.graph.value_info])
    kind = value.type.tensor_type
    if random_.random() < 0.5 and kind.shape.dim:
        random_.choice(kind.shape.dim).dim_value = random_.choice(_NUMBERS)
    else:
        kind.elem_type = random_.choice(list(TensorProto.DataType.values()))


def _head(proto: onnx.ModelProto, random_: random.Random) -> None:
    if proto.opset_import and random_.random() < 0.7:
        random_.choice(proto.opset_import).version = random_.choice((*range(1, 27), *_NUMBERS))
    else:
        proto.ir_version = random_.choice((*range(14), 99))
