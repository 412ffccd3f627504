"""Running the usual passes on a network, normalize to fuse-tlu, and looking at every stage."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper, parser

from onnx_fhe.backends.reference import OverflowReport, count_overflows
from onnx_fhe.ir.dialect import DOMAIN
from onnx_fhe.ir.load import load
from onnx_fhe.ir.ops import Encrypt
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.range_options import Margin, RangeMode, RangeOptions
from onnx_fhe.ir.runtime import Session, run
from onnx_fhe.ir.save import save
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes import Context, PassManager

Arrays = dict[str, np.ndarray]


def text(body: str, **weights: object) -> onnx.ModelProto:
    """A model from ONNX text ``(inputs) => (outputs) { nodes }``; weights are named, nodes are n0, n1, ..."""
    proto = parser.parse_model(
        f'<ir_version: {target_ir_version()}, opset_import: ["": {target_opset()}, "{DOMAIN}": 1]>\ng {body}'
    )
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    return proto


def model(body: str, **weights: object) -> ir.Model:
    """The same as an onnx_ir model with shapes."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(text(body, **weights), data_prop=True))


def dense(*sizes: int, seed: int = 0, activation: str = "Relu") -> onnx.ModelProto:
    """Dense layers with an activation between; the layers are called ``/0``, ``/1``, ..."""
    random = np.random.default_rng(seed)
    nodes, weights, x = [], [], "input"
    for i, (n, m) in enumerate(pairwise(sizes)):
        weights += [
            numpy_helper.from_array(random.normal(0, n**-0.5, (m, n)).astype(np.float32), f"w{i}"),
            numpy_helper.from_array(random.normal(0, 0.2, m).astype(np.float32), f"b{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"z{i}"], name=f"/{i}", transB=1))
        x = f"z{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node(activation, [x], [f"a{i}"], name=f"/{i}/{activation}"))
            x = f"a{i}"
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("input", float32, ["N", sizes[0]])],
        [helper.make_tensor_value_info(x, float32, ["N", sizes[-1]])],
        weights,
    )
    opset = [helper.make_opsetid("", target_opset())]
    return helper.make_model(graph, opset_imports=opset, ir_version=target_ir_version())


def reload(given: ir.Model) -> ir.Model:
    """Save and load."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(given, path)
        return load(path)


def imported(proto: onnx.ModelProto) -> ir.Model:
    """The model as the command line gets it, from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        return load(path)


def context(
    data: Arrays | None = None,
    *,
    range_mode: RangeMode = "observed",
    range_margin: Margin = "auto",
    notes: list[str] | None = None,
    **others: Any,
) -> Context:
    """A context with ``data`` for calibration; ranges and a list for notes may be given by themselves."""
    ready = Context(calibration=data, ranges=RangeOptions(range_mode, range_margin), **others)
    return ready if notes is None else ready.with_notes(notes)


def apply(given: ir.Model, pipeline: str, data: Arrays | None = None, **options: Any) -> ir.Model:
    """Run a pipeline with ``data`` as calibration; every stage must keep the rules of its level."""
    manager = PassManager.parse(pipeline)
    ready = context(data, **options)
    for one in manager.passes:
        given = PassManager([one]).run(given, ready).model
        verify(given)
    return given


def stages(proto: onnx.ModelProto, data: Arrays, quantize: str, *more: str) -> Iterator[tuple[str, ir.Model]]:
    """The models after normalize, quantize (with options), lower-to-integer, fuse-tlu and ``more``."""
    given = imported(proto)
    for one in ("normalize", quantize, "lower-to-integer", "fuse-tlu", *more):
        given = apply(given, one, data)
        yield one.split("{")[0], given


def ops(given: ir.Model) -> list[str]:
    """Operators in order."""
    return [n.op_type for n in given.graph]


def node(given: ir.Model, op_type: str, index: int = 0) -> ir.Node:
    """The ``index``-th node of an operator."""
    return [n for n in given.graph if n.op_type == op_type][index]


def constant(given: ir.Node, index: int) -> np.ndarray:
    """An input of a node that is an initializer."""
    value = given.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def first(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The one output."""
    (array,) = arrays.values()
    return array


def outputs(given: ir.Model, data: Arrays) -> np.ndarray:
    """What the one output is on some samples."""
    return first(run(given, data))


def activations(given: ir.Model) -> list[str]:
    """Names of the integers that activation quantizers make (with their zero point)."""
    last = {n.outputs[0] for n in given.graph if n.op_type == "QuantizeLinear"}
    for one in given.graph:
        if one.op_type == "Clip" and one.inputs[0] in last:
            last.discard(one.inputs[0])
            last.add(one.outputs[0])
    return sorted(str(v.name) for v in last)


def off_by_more_than_one(quantized: ir.Model, integer: ir.Model, data: Arrays) -> tuple[int, int, int]:
    """Compare the integers of all activations of a qdq model and of its lowering.

    Returns:
        How many differ at all, how many by more than one step, and how many there are.
    """
    names = activations(quantized)
    assert names == activations(integer)
    a, b = (Session(m, names).run_batched(data) for m in (quantized, integer))
    distance = np.concatenate([np.abs(a[n].astype(int) - b[n].astype(int)).reshape(-1) for n in names])
    return int((distance > 0).sum()), int((distance > 1).sum()), len(distance)


def random_integers(given: ir.Model, count: int, seed: int = 0) -> tuple[ir.Model, Arrays]:
    """The server part, and random values within what each Encrypt declares, corners included."""
    server = partition(given).server
    random = np.random.default_rng(seed)
    values = {}
    for encrypt, value in zip(Encrypt.all_in(given), server.graph.inputs, strict=True):
        low, high = encrypt.range
        shape = [count, *(int(d) for d in list(value.shape or [])[1:])]  # type: ignore[arg-type]
        anywhere = random.integers(low, high + 1, shape)
        anywhere[: count // 2] = random.choice([low, high], [count // 2, *shape[1:]])
        values[str(value.name)] = anywhere.astype(np.float32)
    return server, values


def overflows(given: ir.Model, count: int = 64, seed: int = 0) -> OverflowReport:
    """Values out of range on random integers."""
    server, values = random_integers(given, count, seed)
    return count_overflows(server, values)


def overflows_on(given: ir.Model, data: Arrays) -> np.ndarray:
    """How many values of each sample are out of range."""
    parts = partition(given)
    inner = run(parts.prologue, data)
    return count_overflows(
        parts.server, {str(v.name): inner[str(v.name)] for v in parts.server.graph.inputs}
    ).by_sample
