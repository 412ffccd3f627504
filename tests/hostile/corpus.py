"""Hostile and malformed model files, made from code: ``build(folder)`` writes them all.

Each kind is a function that writes one file (and what lies beside it) and is registered under its name.
``fine`` marks those that only look odd: they may be read. All others must be refused with one message.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, I64 = TensorProto.FLOAT, TensorProto.INT64
MADE: dict[str, Case] = {}


@dataclass(frozen=True)
class Case:
    """A file: what makes it, whether it may be read, and whether it needs a process of its own."""

    name: str
    make: Callable[[Path], object]
    fine: bool = False
    dangerous: bool = False


def case(fine: bool = False, dangerous: bool = False) -> Callable[[Callable[[Path], object]], Callable]:
    def register(make: Callable[[Path], object]) -> Callable[[Path], object]:
        name = make.__name__.replace("_", "-")
        MADE[name] = Case(name, make, fine, dangerous)
        return make

    return register


def build(folder: Path) -> Iterator[tuple[Case, Path]]:
    """Write every file into a folder of its own below ``folder``."""
    for found in MADE.values():
        inner = folder / found.name
        inner.mkdir(parents=True)
        made = found.make(inner)
        yield found, made if isinstance(made, Path) else put(made, inner)


def put(proto: object, folder: Path) -> Path:
    path = folder / "model.onnx"
    content = proto.SerializeToString() if isinstance(proto, onnx.ModelProto) else proto
    assert isinstance(content, bytes)
    path.write_bytes(content)
    return path


# -------------------- small helpers


def value(name: str, shape: object = (1, 4), kind: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, array: object, dtype: object = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def model(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto] | tuple[()] = (),
    x: Sequence[int] = (1, 4),
    y: Sequence[int | None] | None = None,
    *,
    opset: int = 17,
    functions: list[onnx.FunctionProto] | tuple[()] = (),
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    results = [value("y", [None] * len(x) if y is None else y)]
    graph = helper.make_graph(nodes, "g", [value("x", x)], results, list(weights))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))


def dense() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return model(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], "fc"),
            helper.make_node("Relu", ["h"], ["y"], "relu"),
        ],
        [tensor("w", rng.normal(size=(4, 3))), tensor("b", rng.normal(size=3))],
    )


def node(op: str, inputs: list[str], output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], output, **attributes)


def conv(weight: tuple[int, ...] = (4, 4, 3, 3), x: tuple[int, ...] = (1, 4, 8, 8), **attributes: object):
    return model([node("Conv", ["x", "w"], **attributes)], [tensor("w", np.ones(weight))], x)


def shaped(op: str, shape: list[int], x: Sequence[int] = (1, 1), **attributes: object) -> onnx.ModelProto:
    """An operator whose second input is a shape, before a dense layer."""
    return model([node(op, ["x", "s"], **attributes)], [tensor("s", shape, np.int64)], x)


# -------------------- no ONNX file at all


@case()
def empty(_: Path) -> bytes:
    return b""


@case()
def text(_: Path) -> bytes:
    return b"this is no model\n" * 20


@case()
def json_text(_: Path) -> bytes:
    return b'{"graph": {"node": []}}'


@case()
def zeros(_: Path) -> bytes:
    return bytes(5000)


@case()
def noise(_: Path) -> bytes:
    return np.random.default_rng(1).bytes(5000)


@case()
def python_pickle(_: Path) -> bytes:
    return b"\x80\x04cos\nsystem\n(S'echo hurt'\ntR."


@case()
def a_zip(folder: Path) -> Path:
    path = folder / "model.onnx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"hello")
    return path


@case()
def a_folder(folder: Path) -> Path:
    (folder / "model.onnx").mkdir()
    return folder / "model.onnx"


@case()
def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


@case()
def a_device(_: Path) -> Path:
    return Path("/dev/zero")


@case()
def missing(folder: Path) -> Path:
    return folder / "model.onnx"


@case()
def link_to_nothing(folder: Path) -> Path:
    (folder / "model.onnx").symlink_to("nowhere")
    return folder / "model.onnx"


@case()
def link_to_itself(folder: Path) -> Path:
    (folder / "model.onnx").symlink_to("model.onnx")
    return folder / "model.onnx"


@case()
def name_too_long(folder: Path) -> Path:
    return folder / ("m" * 300 + ".onnx")


# -------------------- damaged protobufs


@case()
def truncated_early(_: Path) -> bytes:
    return dense().SerializeToString()[:30]


@case()
def truncated_in_weights(_: Path) -> bytes:
    return dense().SerializeToString()[:-60]


@case()
def truncated_last_byte(_: Path) -> bytes:
    return dense().SerializeToString()[:-1]


@case()
def flipped_length(_: Path) -> bytes:
    content = bytearray(dense().SerializeToString())
    content[content.index(b"Gemm") - 1] ^= 0x40
    return bytes(content)


@case()
def flipped_tag(_: Path) -> bytes:
    content = bytearray(dense().SerializeToString())
    content[content.index(b"Gemm") - 2] ^= 0x05
    return bytes(content)


@case()
def endless_varint(_: Path) -> bytes:
    return b"\x08" + b"\xff" * 100


@case()
def length_of_gigabytes(_: Path) -> bytes:
    return b"\x3a\xff\xff\xff\xff\x07" + b"x" * 100


@case()
def deep_protobuf(_: Path) -> bytes:
    inner = b""
    for _level in range(5000):
        length, size = b"", len(inner)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        inner = b"\x32" + length + bytes([size]) + inner
    return b"\x3a" + dense().graph.SerializeToString()[:0] + b"\x00" + inner


@case(dangerous=True)
def a_million_empty_nodes(_: Path) -> bytes:
    graph = b"\x0a\x00" * 20_000_000
    length, size = b"", len(graph)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return b"\x08\x08\x3a" + length + bytes([size]) + graph


@case()
def names_that_are_no_text(_: Path) -> bytes:
    return dense().SerializeToString().replace(b"relu", b"\xff\xfe\xfd\xfc")


@case()
def operator_that_is_no_text(_: Path) -> bytes:
    return dense().SerializeToString().replace(b"Relu", b"\xc3\x28\xa0\xa1")


@case()
def graph_and_nothing(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.Clear()
    return proto


# -------------------- broken graphs


@case()
def no_nodes(_: Path) -> onnx.ModelProto:
    proto = dense()
    del proto.graph.node[:]
    return proto


@case()
def no_outputs(_: Path) -> onnx.ModelProto:
    proto = dense()
    del proto.graph.output[:]
    return proto


@case()
def output_that_nobody_makes(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.output[0].name = "nobody"
    return proto


@case()
def input_that_nobody_makes(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.node[0].input[0] = "nobody"
    return proto


@case()
def no_inputs(_: Path) -> onnx.ModelProto:
    proto = dense()
    del proto.graph.input[:]
    return proto


@case()
def cycle(_: Path) -> onnx.ModelProto:
    return model([node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["a"])])


@case()
def node_that_reads_itself(_: Path) -> onnx.ModelProto:
    return model([node("Add", ["x", "y"])])


@case()
def long_cycle(_: Path) -> onnx.ModelProto:
    nodes = [node("Add", ["x", "n999"], "n0")]
    nodes += [node("Relu", [f"n{i}"], f"n{i + 1}") for i in range(999)]
    return model([*nodes, node("Relu", ["n5"])])


@case()
def backwards(_: Path) -> onnx.ModelProto:
    proto = dense()
    nodes = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


@case()
def two_values_of_one_name(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"]), node("Neg", ["x"])])


@case()
def two_weights_of_one_name(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.initializer[1].name = "w"
    return proto


@case()
def two_inputs_of_one_name(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.input.append(value("x"))
    return proto


@case()
def weight_named_like_a_result(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.initializer.append(tensor("h", [1.0]))
    return proto


@case()
def node_without_inputs(_: Path) -> onnx.ModelProto:
    return model([node("Gemm", [])])


@case()
def node_without_outputs(_: Path) -> onnx.ModelProto:
    proto = dense()
    del proto.graph.node[1].output[:]
    return proto


@case()
def too_many_inputs(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"] * 5)])


@case()
def gap_among_inputs_of_any_number(_: Path) -> onnx.ModelProto:
    return model([node("Sum", ["x", "", "x"])])


@case()
def empty_names(_: Path) -> onnx.ModelProto:
    return model([node("Gemm", ["", "", ""])])


@case()
def unknown_operator(_: Path) -> onnx.ModelProto:
    return model([node("Frobnicate", ["x"])])


@case()
def unknown_domain(_: Path) -> onnx.ModelProto:
    return model([node("Custom", ["x"], domain="evil.corp")], domains=("evil.corp",))


@case(fine=True)
def terminal_escapes(_: Path) -> onnx.ModelProto:
    return model([node("Odd\x1b[2J\u202e[red]", ["x"], "y\x1b]0;owned\x07")])


@case()
def names_with_line_ends(_: Path) -> onnx.ModelProto:
    return model([helper.make_node("Odd", ["x"], ["y"], "ok\nerror: run rm -rf ~\r")])


@case(fine=True)
def code_for_a_name(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.node[0].name = "__import__('os').system('touch hurt')"
    proto.graph.node[1].name = "../../../../hurt"
    return proto


@case()
def very_long_name(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.node[0].name = "n" * 1_000_000
    return proto


# -------------------- opsets and metadata


def with_opset(version: int) -> onnx.ModelProto:
    proto = dense()
    proto.opset_import[0].version = version
    return proto


@case()
def opset_zero(_: Path) -> onnx.ModelProto:
    return with_opset(0)


@case()
def opset_negative(_: Path) -> onnx.ModelProto:
    return with_opset(-5)


@case()
def opset_from_the_future(_: Path) -> onnx.ModelProto:
    return with_opset(10**6)


@case()
def opset_of_64_bits(_: Path) -> onnx.ModelProto:
    return with_opset(2**63 - 1)


@case()
def no_opset(_: Path) -> onnx.ModelProto:
    proto = dense()
    del proto.opset_import[:]
    return proto


@case()
def two_opsets(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    return proto


@case()
def no_ir_version(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.ir_version = 0
    return proto


@case()
def ir_version_from_the_future(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.ir_version = 10**9
    return proto


@case()
def ir_version_negative(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.ir_version = -1
    return proto


@case(fine=True)
def claims_to_be_normalized(_: Path) -> onnx.ModelProto:
    proto = model([node("Gemm", ["x", "w"], alpha=2.0)], [tensor("w", np.ones((4, 3)))])
    helper.set_model_props(proto, {"onnx_fhe.normalized": "true", "onnx_fhe.level": "float"})
    return proto


@case()
def claims_to_be_integer(_: Path) -> onnx.ModelProto:
    proto = dense()
    helper.set_model_props(proto, {"onnx_fhe.level": "integer"})
    return proto


@case()
def claims_to_be_qdq(_: Path) -> onnx.ModelProto:
    proto = dense()
    helper.set_model_props(proto, {"onnx_fhe.level": "qdq", "onnx_fhe.normalized": "true"})
    return proto


@case()
def dialect_without_tables(_: Path) -> onnx.ModelProto:
    return model([node("TableLookup", ["x"], domain="onnx_fhe")], domains=("onnx_fhe",))


@case()
def dialect_with_odd_tables(_: Path) -> onnx.ModelProto:
    nodes = [
        node("Encrypt", ["x"], "e", domain="onnx_fhe", low=5, high=-5),
        node("TableLookup", ["e", "t", "f"], "l", domain="onnx_fhe", step=0, axis=99),
        node("Decrypt", ["l"], domain="onnx_fhe", low=0, high=1),
    ]
    weights = [tensor("t", np.zeros((0, 0))), tensor("f", [1e30])]
    return model(nodes, weights, domains=("onnx_fhe",))


@case()
def dialect_from_the_future(_: Path) -> onnx.ModelProto:
    proto = model([node("Encrypt", ["x"], domain="onnx_fhe", low=0, high=3)], domains=("onnx_fhe",))
    proto.opset_import[1].version = 99
    return proto


@case()
def training_information(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.training_info.add().algorithm.CopyFrom(proto.graph)
    return proto


# -------------------- weights and types


def weight(change: Callable[[TensorProto], object]) -> onnx.ModelProto:
    proto = dense()
    change(proto.graph.initializer[0])
    return proto


@case()
def weight_too_short(_: Path) -> onnx.ModelProto:
    return weight(lambda t: setattr(t, "raw_data", t.raw_data[:-4]))


@case()
def weight_too_long(_: Path) -> onnx.ModelProto:
    return weight(lambda t: setattr(t, "raw_data", t.raw_data + b"abcd"))


@case()
def weight_without_content(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.ClearField("raw_data"))


@case()
def weight_of_terabytes(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.dims.__setitem__(slice(None), [10**6, 10**6]))


@case()
def weight_that_overflows(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.dims.__setitem__(slice(None), [2**32, 2**32, 2**32]))


@case()
def weight_with_negative_axis(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.dims.__setitem__(slice(None), [-4, -3]))


@case()
def weight_of_many_axes(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.dims.__setitem__(slice(None), [1] * 5000 + [4, 3]))


@case()
def weight_without_type(_: Path) -> onnx.ModelProto:
    return weight(lambda t: setattr(t, "data_type", 0))


@case()
def weight_of_unknown_type(_: Path) -> onnx.ModelProto:
    return weight(lambda t: setattr(t, "data_type", 7777))


@case()
def weight_of_wrong_type(_: Path) -> onnx.ModelProto:
    return weight(lambda t: setattr(t, "data_type", TensorProto.INT32))


@case()
def weight_of_strings(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(helper.make_tensor("w", TensorProto.STRING, [4, 3], [b"a"] * 12)))


@case()
def weight_of_complex(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(numpy_helper.from_array(np.ones((4, 3), np.complex64), "w")))


@case(fine=True)
def weight_of_bfloat16(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(helper.make_tensor("w", TensorProto.BFLOAT16, [4, 3], [1.0] * 12)))


@case(fine=True)
def weight_of_float16(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(numpy_helper.from_array(np.ones((4, 3), np.float16), "w")))


@case()
def weight_of_int4(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(helper.make_tensor("w", TensorProto.INT4, [4, 3], [1] * 12)))


@case()
def weight_of_float8(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [4, 3], [1.0] * 12)))


@case()
def weight_of_nan(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(tensor("w", np.full((4, 3), np.nan))))


@case()
def weight_of_infinities(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(tensor("w", np.full((4, 3), -np.inf))))


@case(fine=True)
def weight_of_largest_floats(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(tensor("w", np.full((4, 3), 3.4e38))))


@case()
def weight_of_wrong_shape(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(tensor("w", np.ones((5, 3)))))


@case()
def weight_with_zero_axis(_: Path) -> onnx.ModelProto:
    return weight(lambda t: t.CopyFrom(tensor("w", np.ones((4, 0)))))


@case()
def bias_of_wrong_rank(_: Path) -> onnx.ModelProto:
    proto = dense()
    proto.graph.initializer[1].CopyFrom(tensor("b", np.ones((2, 3, 3))))
    return proto


@case()
def sparse_weight(_: Path) -> onnx.ModelProto:
    proto = dense()
    sparse = helper.make_sparse_tensor(tensor("w", [1.0]), tensor("i", [0], np.int64), [10**6, 10**6])
    del proto.graph.initializer[0]
    proto.graph.sparse_initializer.append(sparse)
    return proto


@case()
def weight_in_segments(_: Path) -> onnx.ModelProto:
    return weight(lambda t: (setattr(t.segment, "begin", 0), setattr(t.segment, "end", 10**12)))


# -------------------- inputs


def with_input(kind: onnx.ValueInfoProto) -> onnx.ModelProto:
    proto = model([node("Identity", ["x"])])
    proto.graph.input[0].CopyFrom(kind)
    proto.graph.output[0].CopyFrom(kind)
    proto.graph.output[0].name = "y"
    return proto


@case()
def input_of_strings(_: Path) -> onnx.ModelProto:
    return with_input(value("x", (1, 4), TensorProto.STRING))


@case()
def input_of_complex(_: Path) -> onnx.ModelProto:
    return with_input(value("x", (1, 4), TensorProto.COMPLEX64))


@case()
def input_of_no_type(_: Path) -> onnx.ModelProto:
    return with_input(onnx.ValueInfoProto(name="x"))


@case()
def input_without_shape(_: Path) -> onnx.ModelProto:
    return with_input(value("x", None))


@case()
def input_that_is_a_sequence(_: Path) -> onnx.ModelProto:
    return with_input(helper.make_tensor_sequence_value_info("x", F, (1, 4)))


@case()
def input_that_is_optional(_: Path) -> onnx.ModelProto:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(F, (1, 4)))
    return with_input(helper.make_value_info("x", kind))


@case()
def input_that_is_a_map(_: Path) -> onnx.ModelProto:
    kind = helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F, (1,)))
    return with_input(helper.make_value_info("x", kind))


@case()
def input_with_negative_axis(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"])], x=(1, -4))


@case()
def input_of_terabytes(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"])], x=(1, 10**6, 10**6))


@case()
def input_of_no_samples_of_terabytes(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"])], x=(0, 10**6, 10**6))


@case()
def input_that_overflows(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"])], x=(2**62, 2**62))


@case()
def input_of_no_elements(_: Path) -> onnx.ModelProto:
    return model([node("Gemm", ["x", "w"])], [tensor("w", np.ones((0, 3)))], x=(1, 0))


@case()
def scalar_input(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"])], x=())


# -------------------- attributes


@case(dangerous=True)
def conv_group_zero(_: Path) -> onnx.ModelProto:
    return conv(group=0)


@case()
def conv_group_negative(_: Path) -> onnx.ModelProto:
    return conv(group=-1)


@case()
def conv_group_that_does_not_divide(_: Path) -> onnx.ModelProto:
    return conv(group=3)


@case()
def conv_with_other_channels(_: Path) -> onnx.ModelProto:
    return conv((4, 5, 3, 3))


@case(dangerous=True)
def conv_stride_zero(_: Path) -> onnx.ModelProto:
    return conv(strides=[0, 0])


@case()
def conv_stride_negative(_: Path) -> onnx.ModelProto:
    return conv(strides=[-1, -1])


@case()
def conv_stride_of_64_bits(_: Path) -> onnx.ModelProto:
    return conv(strides=[2**63 - 1, 1])


@case()
def conv_dilation_zero(_: Path) -> onnx.ModelProto:
    return conv(dilations=[0, 0])


@case()
def conv_pads_of_64_bits(_: Path) -> onnx.ModelProto:
    return conv(pads=[2**62] * 4)


@case(dangerous=True)
def conv_pads_of_millions(_: Path) -> onnx.ModelProto:
    return conv(pads=[10**6] * 4)


@case()
def conv_pads_negative(_: Path) -> onnx.ModelProto:
    return conv(pads=[-100] * 4)


@case()
def conv_pads_of_wrong_length(_: Path) -> onnx.ModelProto:
    return conv(pads=[1])


@case()
def conv_kernel_of_another_shape(_: Path) -> onnx.ModelProto:
    return conv(kernel_shape=[5, 5])


@case()
def conv_with_no_kernel(_: Path) -> onnx.ModelProto:
    return conv((4, 4, 0, 0))


@case()
def conv_larger_than_the_image(_: Path) -> onnx.ModelProto:
    return conv((4, 4, 30, 30))


@case()
def conv_auto_pad_of_no_kind(_: Path) -> onnx.ModelProto:
    return conv(auto_pad="SIDEWAYS")


@case(dangerous=True)
def pool_kernel_of_billions(_: Path) -> onnx.ModelProto:
    return model([node("MaxPool", ["x"], kernel_shape=[2**30, 2**30], pads=[2**29] * 4)], x=(1, 1, 8, 8))


@case(dangerous=True)
def pool_stride_zero(_: Path) -> onnx.ModelProto:
    return model([node("AveragePool", ["x"], kernel_shape=[2, 2], strides=[0, 0])], x=(1, 1, 8, 8))


@case()
def pool_without_kernel(_: Path) -> onnx.ModelProto:
    return model([node("MaxPool", ["x"])], x=(1, 1, 8, 8))


@case()
def attribute_of_nan(_: Path) -> onnx.ModelProto:
    return model([node("LeakyRelu", ["x"], alpha=float("nan"))])


@case()
def attribute_of_wrong_type(_: Path) -> onnx.ModelProto:
    return model([node("Gemm", ["x", "w"], transB="yes")], [tensor("w", np.ones((3, 4)))])


@case()
def attribute_without_type(_: Path) -> onnx.ModelProto:
    proto = model([node("LeakyRelu", ["x"], alpha=0.5)])
    proto.graph.node[0].attribute[0].type = 0
    return proto


@case()
def attribute_of_unknown_type(_: Path) -> bytes:
    content = model([node("LeakyRelu", ["x"], alpha=0.5)]).SerializeToString()
    return content.replace(b"\xa0\x01\x01", b"\xa0\x01\x63")


@case()
def attribute_given_twice(_: Path) -> onnx.ModelProto:
    proto = model([node("LeakyRelu", ["x"], alpha=0.5)])
    proto.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.25))
    return proto


@case()
def attribute_that_there_is_not(_: Path) -> onnx.ModelProto:
    return model([node("Relu", ["x"], evil=1)])


@case()
def attribute_that_refers_to_nothing(_: Path) -> onnx.ModelProto:
    proto = model([node("LeakyRelu", ["x"], alpha=0.5)])
    attribute = proto.graph.node[0].attribute[0]
    attribute.ref_attr_name = "nothing"
    return proto


@case()
def axis_out_of_range(_: Path) -> onnx.ModelProto:
    return model([node("Softmax", ["x"], axis=99)])


@case()
def transpose_with_odd_order(_: Path) -> onnx.ModelProto:
    return model([node("Transpose", ["x"], perm=[0, 0, 7])])


@case()
def reshape_to_another_size(_: Path) -> onnx.ModelProto:
    return shaped("Reshape", [7, 7], (1, 4))


@case()
def reshape_to_negative_sizes(_: Path) -> onnx.ModelProto:
    return shaped("Reshape", [-1, -1, -5], (1, 4))


@case(dangerous=True)
def whole_number_divided_by_zero(_: Path) -> onnx.ModelProto:
    nodes = [
        node("Div", ["a", "zero"], "q"),
        node("Cast", ["q"], "f", to=F),
        node("Add", ["x", "f"]),
    ]
    return model(nodes, [tensor("a", [1, 2, 3, 4], np.int64), tensor("zero", [0], np.int64)])


@case(dangerous=True)
def modulo_zero(_: Path) -> onnx.ModelProto:
    nodes = [node("Mod", ["a", "zero"], "q"), node("Cast", ["q"], "f", to=F), node("Add", ["x", "f"])]
    return model(nodes, [tensor("a", [1, 2, 3, 4], np.int32), tensor("zero", [0], np.int32)])


@case()
def gather_out_of_range(_: Path) -> onnx.ModelProto:
    return model([node("Gather", ["x", "i"], axis=1)], [tensor("i", [10**9], np.int64)])


@case()
def split_into_nothing(_: Path) -> onnx.ModelProto:
    return model([helper.make_node("Split", ["x"], ["y", "z"], "s", axis=1, num_outputs=0)], opset=18)


@case()
def depth_to_space_of_zero(_: Path) -> onnx.ModelProto:
    return model([node("DepthToSpace", ["x"], blocksize=0)], x=(1, 4, 2, 2))


@case()
def einsum_of_no_sense(_: Path) -> onnx.ModelProto:
    return model([node("Einsum", ["x"], equation="......->,,,(")])


# -------------------- bombs


@case(dangerous=True)
def expand_bomb(_: Path) -> onnx.ModelProto:
    return shaped("Expand", [10**5, 10**6])


@case(dangerous=True)
def expand_past_64_bits(_: Path) -> onnx.ModelProto:
    return shaped("Expand", [2**40, 2**40])


@case(dangerous=True)
def tile_bomb(_: Path) -> onnx.ModelProto:
    return shaped("Tile", [10**5, 10**6])


@case(dangerous=True)
def pad_bomb(_: Path) -> onnx.ModelProto:
    return shaped("Pad", [10**5, 10**6, 10**5, 10**6])


@case(dangerous=True)
def constant_of_shape_bomb(_: Path) -> onnx.ModelProto:
    nodes = [node("ConstantOfShape", ["s"], "c"), node("ReduceSum", ["c"], "r"), node("Add", ["x", "r"])]
    return model(nodes, [tensor("s", [10**5, 10**6], np.int64)])


@case(dangerous=True)
def range_bomb(_: Path) -> onnx.ModelProto:
    nodes = [node("Range", ["a", "b", "c"], "r"), node("ReduceMax", ["r"], "m"), node("Add", ["x", "m"])]
    return model(nodes, [tensor("a", 0), tensor("b", 1e12), tensor("c", 1)])


@case(dangerous=True)
def resize_bomb(_: Path) -> onnx.ModelProto:
    return model([node("Resize", ["x", "", "s"])], [tensor("s", [1, 1, 1e5, 1e5])], x=(1, 1, 8, 8))


@case(dangerous=True)
def upsample_bomb(_: Path) -> onnx.ModelProto:
    return model([node("Upsample", ["x", "s"])], [tensor("s", [1, 1, 1e5, 1e5])], x=(1, 1, 8, 8), opset=9)


@case(dangerous=True)
def one_hot_bomb(_: Path) -> onnx.ModelProto:
    nodes = [node("Cast", ["x"], "i", to=I64), node("OneHot", ["i", "d", "v"])]
    return model(nodes, [tensor("d", 10**11, np.int64), tensor("v", [0, 1])], y=[None] * 3)


@case(dangerous=True)
def doubling_concats(_: Path) -> onnx.ModelProto:
    nodes = [node("Concat", [f"n{i}", f"n{i}"], f"n{i + 1}", axis=1) for i in range(40)]
    return model([node("Relu", ["x"], "n0"), *nodes, node("Relu", ["n40"])])


@case(dangerous=True)
def doubling_shapes(_: Path) -> onnx.ModelProto:
    nodes = [node("Concat", [f"n{i}", f"n{i}"], f"n{i + 1}", axis=0) for i in range(40)]
    last = [node("Size", ["n40"], "s"), node("Cast", ["s"], "f", to=F), node("Add", ["x", "f"])]
    return model([node("Shape", ["x"], "n0"), *nodes, *last])


@case(dangerous=True)
def growing_sums(_: Path) -> onnx.ModelProto:
    nodes, shape = [], [1] * 8
    weights = []
    for axis in range(8):
        shape[axis] = 100
        weights.append(tensor(f"w{axis}", np.ones([100 if a == axis else 1 for a in range(8)])))
        nodes.append(node("Add", [f"n{axis}", f"w{axis}"], f"n{axis + 1}"))
    return model([node("Relu", ["x"], "n0"), *nodes, node("Relu", ["n8"])], weights, x=[1] * 8)


@case(dangerous=True)
def einsum_bomb(_: Path) -> onnx.ModelProto:
    return model([node("Einsum", ["x", "x", "x"], equation="a,b,c->abc")], x=(5000,), y=[None] * 3)


@case(dangerous=True)
def einsum_of_work(_: Path) -> onnx.ModelProto:
    return model([node("Einsum", ["x"] * 5, equation="a,b,c,d,e->")], x=(5000,), y=())


@case(dangerous=True)
def product_of_work(_: Path) -> onnx.ModelProto:
    nodes = [node("Expand", ["x", "s"], "m"), *(node("MatMul", ["m", "m"], f"p{i}") for i in range(20))]
    total = node("Sum", [f"p{i}" for i in range(20)])
    return model([*nodes, total], [tensor("s", [6000, 6000], np.int64)], x=(1, 1))


@case(dangerous=True)
def shape_computed_from_data(_: Path) -> onnx.ModelProto:
    nodes = [
        node("ReduceSum", ["x"], "r", keepdims=0),
        node("Cast", ["r"], "i", to=I64),
        node("Mul", ["i", "zero"], "z"),
        node("Add", ["z", "many"], "n"),
        node("Unsqueeze", ["n", "zero1"], "s"),
        node("ConstantOfShape", ["s"], "c"),
        node("ReduceSum", ["c"], "t", keepdims=0),
        node("Add", ["x", "t"]),
    ]
    weights = [
        tensor("zero", 0, np.int64),
        tensor("many", 10**11, np.int64),
        tensor("zero1", [0], np.int64),
    ]
    return model(nodes, weights)


def loop(times: int, body: list[onnx.NodeProto], weights: list[TensorProto]) -> onnx.ModelProto:
    inside = helper.make_graph(
        [*body, node("Identity", ["go"], "go_on")],
        "body",
        [value("i", (), I64), value("go", (), TensorProto.BOOL), value("v", None)],
        [value("go_on", (), TensorProto.BOOL), value("v_out", None)],
    )
    nodes = [helper.make_node("Loop", ["m", "yes", "x"], ["y"], "loop", body=inside)]
    return model(nodes, [tensor("m", times, np.int64), tensor("yes", True, np.bool_), *weights])


@case(dangerous=True)
def endless_loop(_: Path) -> onnx.ModelProto:
    return loop(2**62, [node("Neg", ["v"], "v_out")], [])


@case(dangerous=True)
def doubling_loop(_: Path) -> onnx.ModelProto:
    return loop(60, [node("Concat", ["v", "v"], "v_out", axis=0)], [])


@case()
def deep_ifs(_: Path) -> onnx.ModelProto:
    graph = helper.make_graph([node("Neg", ["x"], "r")], "b", [], [value("r", None)])
    for _level in range(28):
        inner = helper.make_node("If", ["c"], ["r"], then_branch=graph, else_branch=graph)
        if len(graph.SerializeToString()) > 100_000:
            inner = helper.make_node("If", ["c"], ["r"], then_branch=graph)
        graph = helper.make_graph([inner], "b", [], [value("r", None)])
    last = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
    return model([last], [tensor("c", True, np.bool_)])


@case()
def branch_without_a_graph(_: Path) -> onnx.ModelProto:
    return model([helper.make_node("If", ["c"], ["y"])], [tensor("c", True, np.bool_)])


# -------------------- functions


def function(name: str, nodes: list[onnx.NodeProto], **more: object) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["r"], nodes, imports, **more)


@case(dangerous=True)
def function_that_calls_itself(_: Path) -> onnx.ModelProto:
    body = [node("f", ["a"], "r", domain="f")]
    return model([node("f", ["x"], domain="f")], functions=[function("f", body)], domains=("f",))


@case(dangerous=True)
def functions_that_call_each_other(_: Path) -> onnx.ModelProto:
    functions = [function(f"f{i}", [node(f"f{(i + 1) % 3}", ["a"], "r", domain="f")]) for i in range(3)]
    return model([node("f0", ["x"], domain="f")], functions=functions, domains=("f",))


@case(dangerous=True)
def function_bomb(_: Path) -> onnx.ModelProto:
    functions = []
    for level in range(12):
        inner = [node(f"f{level + 1}", [f"v{i}"], f"v{i + 1}", domain="f") for i in range(10)]
        functions.append(function(f"f{level}", [node("Neg", ["a"], "v0"), *inner, node("Neg", ["v10"], "r")]))
    functions.append(function("f12", [node("Neg", ["a"], "r")]))
    return model([node("f0", ["x"], domain="f")], functions=functions, domains=("f",))


@case(dangerous=True)
def function_chain(_: Path) -> onnx.ModelProto:
    functions = [function(f"f{i}", [node(f"f{i + 1}", ["a"], "r", domain="f")]) for i in range(5000)]
    functions.append(function("f5000", [node("Neg", ["a"], "r")]))
    return model([node("f0", ["x"], domain="f")], functions=functions, domains=("f",))


@case()
def function_defined_twice(_: Path) -> onnx.ModelProto:
    functions = [function("f", [node("Neg", ["a"], "r")]), function("f", [node("Abs", ["a"], "r")])]
    return model([node("f", ["x"], domain="f")], functions=functions, domains=("f",))


@case()
def function_with_no_result(_: Path) -> onnx.ModelProto:
    return model(
        [node("f", ["x"], domain="f")], functions=[function("f", [node("Neg", ["a"], "q")])], domains=("f",)
    )


@case()
def function_named_like_an_operator(_: Path) -> onnx.ModelProto:
    body = helper.make_function(
        "", "Relu", ["a"], ["r"], [node("Relu", ["a"], "r")], [helper.make_opsetid("", 17)]
    )
    return model([node("Relu", ["x"])], functions=[body])


# -------------------- size


@case(dangerous=True)
def hundred_thousand_nodes(_: Path) -> onnx.ModelProto:
    nodes = [node("Relu", [f"n{i}"], f"n{i + 1}") for i in range(100_000)]
    return model([node("Relu", ["x"], "n0"), *nodes, node("Relu", ["n100000"])])


@case(fine=True)
def three_hundred_inputs(_: Path) -> onnx.ModelProto:
    return model([node("Sum", ["x"] * 300)])


# -------------------- external data


def outside(folder: Path, location: str, offset: object = 0, length: object = 48) -> onnx.ModelProto:
    (folder / "weights.bin").write_bytes(bytes(48))
    proto = dense()
    stored = proto.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, entry in (("location", location), ("offset", offset), ("length", length)):
        stored.external_data.add(key=key, value=str(entry))
    return proto


@case()
def external_absolute(folder: Path) -> onnx.ModelProto:
    return outside(folder, "/etc/passwd")


@case()
def external_parent(folder: Path) -> onnx.ModelProto:
    return outside(folder, "../../../../../../../etc/passwd")


@case()
def external_parent_within(folder: Path) -> onnx.ModelProto:
    return outside(folder, f"../{folder.name}/weights.bin")


@case()
def external_windows(folder: Path) -> onnx.ModelProto:
    return outside(folder, "C:\\Windows\\win.ini")


@case()
def external_odd_dots(folder: Path) -> onnx.ModelProto:
    return outside(folder, "\uff0e\uff0e/weights.bin")


@case()
def external_odd_slash(folder: Path) -> onnx.ModelProto:
    return outside(folder, "a\uff0fweights.bin")


@case()
def external_hidden_characters(folder: Path) -> onnx.ModelProto:
    (folder / "wei\u200bghts.bin").write_bytes(bytes(48))
    return outside(folder, "wei\u200bghts.bin")


@case()
def external_null(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin\0.txt")


@case()
def external_link(folder: Path) -> onnx.ModelProto:
    (folder / "link").symlink_to("/etc/passwd")
    return outside(folder, "link", 0, 48)


@case()
def external_link_of_folder(folder: Path) -> onnx.ModelProto:
    (folder / "inner").symlink_to("/etc")
    return outside(folder, "inner/passwd", 0, 48)


@case()
def external_device(folder: Path) -> onnx.ModelProto:
    (folder / "zero").symlink_to("/dev/zero")
    return outside(folder, "zero")


@case()
def external_pipe(folder: Path) -> onnx.ModelProto:
    os.mkfifo(folder / "pipe")
    return outside(folder, "pipe")


@case()
def external_folder(folder: Path) -> onnx.ModelProto:
    return outside(folder, ".")


@case()
def external_missing(folder: Path) -> onnx.ModelProto:
    return outside(folder, "nothing.bin")


@case()
def external_no_location(folder: Path) -> onnx.ModelProto:
    return outside(folder, "")


@case()
def external_offset_negative(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin", -48)


@case()
def external_offset_past_the_end(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin", 10**15)


@case()
def external_offset_of_words(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin", "zero")


@case()
def external_offset_of_many_digits(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin", "9" * 10_000)


@case()
def external_length_negative(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin", 0, -1)


@case()
def external_length_of_terabytes(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin", 0, 10**13)


@case()
def external_too_short(folder: Path) -> onnx.ModelProto:
    return outside(folder, "weights.bin", 8, 40)


@case(dangerous=True)
def external_of_terabytes(folder: Path) -> onnx.ModelProto:
    proto = outside(folder, "weights.bin", 0, 4 * 10**12)
    with (folder / "weights.bin").open("r+b") as file:
        file.truncate(2**35)
    proto.graph.initializer[0].dims[:] = [10**6, 10**6]
    return proto


@case(fine=True)
def external_as_it_should_be(folder: Path) -> onnx.ModelProto:
    return outside(folder, "./weights.bin")


@case(fine=True)
def unpacked_floats(_: Path) -> onnx.ModelProto:
    proto = dense()
    stored = proto.graph.initializer[0]
    values = struct.unpack("<12f", stored.raw_data)
    stored.ClearField("raw_data")
    stored.float_data.extend(values)
    return proto
