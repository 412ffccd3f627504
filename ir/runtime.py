"""Running an ONNX model in onnxruntime, whole or a few of its nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from . import dialect, inlining, sessions
from .batch_runner import Arrays, BatchRunner
from .errors import ModelError
from .exact import exact
from .parts import Part

_ELEMENTS = {"tensor(int8)": TensorProto.INT8, "tensor(uint8)": TensorProto.UINT8}
_MAX_KEPT_SESSIONS = 512
"""Sessions for some nodes that are kept for the next run."""
_SESSIONS: dict[tuple[Any, ...], Session] = {}
_LOCK = Lock()


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """``model`` as a protobuf with the dialect's bodies attached."""
    return dialect.attach(ir.serde.serialize_model(model))


def skeleton(model: ir.Model, most: int | None = None) -> onnx.ModelProto:
    """``model`` as a protobuf with no shapes but those of its inputs; for inference or runs.

    Args:
        model: Its own functions (other than the dialect's) must be inlined.
        most: Initializers with more elements are left out, and stand among the inputs.
    """
    source, serde = model.graph, ir.serde
    graph = onnx.GraphProto(name=source.name or "graph")
    graph.input.extend(serde.serialize_value(v) for v in source.inputs)
    for value in source.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input():
            continue
        if most is None or tensor.size <= most:
            kept = graph.initializer.add()
            serde.serialize_tensor_into(kept, tensor)
            kept.name = value.name or ""
        else:
            shape = [int(d) for d in tensor.numpy().shape]
            kind = onnx.helper.make_tensor_value_info(value.name or "", int(tensor.dtype), shape)
            graph.input.append(kind)
    for node in source:
        serde.serialize_node_into(graph.node.add(), node)
    for output in source.outputs:
        found = serde.serialize_value(output)
        if found.type.HasField("tensor_type"):
            found.type.tensor_type.ClearField("shape")
        graph.output.append(found)
    imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    return dialect.attach(onnx.helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version))


class Session(BatchRunner):
    """A model ready to run on batches.

    Args:
        model: The model; any level.
        outputs: Names of the values to return; ``None`` for the graph outputs. Values inside the graph may be
            named.
        given: Elements that a run is given, where they are known to be many.
        kept: Whether it is one of many that wait for their next run, and holds no memory meanwhile.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """

    def __init__(
        self,
        model: ir.Model | onnx.ModelProto,
        outputs: Iterable[str] | None = None,
        given: int = 0,
        kept: bool = False,
    ) -> None:
        proto = prepared(model, outputs)
        super().__init__(sessions.make(proto.SerializeToString(), _weights(proto) + given, kept))


def prepared(model: ir.Model | onnx.ModelProto, outputs: Iterable[str] | None = None) -> onnx.ModelProto:
    """``model`` as onnxruntime runs it best: the dialect inlined, products of 8-bit integers exact.

    Args:
        model: The model; any level. A protobuf stays as it is.
        outputs: Names of the values to return; ``None`` for the graph outputs.
    """
    proto = _runnable(model) if isinstance(model, ir.Model) else model
    if outputs is not None:
        proto = _with_outputs(proto, list(outputs))
    elif proto is model and inlining.concerns(proto):
        proto = _copy(proto)
    inlining.inline(proto)
    return exact(proto, _types)


def _runnable(model: ir.Model) -> onnx.ModelProto:
    """``model`` as a protobuf with the shapes that a session needs: of inputs, and where ``inlining`` looks.

    To write all shapes takes longer than all else, and onnxruntime infers them anyway.
    """
    if model.functions or any(v.is_graph_input() for v in model.graph.initializers.values()):
        return to_proto(model)
    proto = skeleton(model)
    read = {n.inputs[0] for n in model.graph if n.domain == dialect.DOMAIN and n.inputs}
    for value in read - {None, *model.graph.inputs}:
        if value is not None and value.name and value.shape is not None and value.type is not None:
            ir.serde.serialize_value_into(proto.graph.value_info.add(), value)
    return proto


def _weights(proto: onnx.ModelProto) -> int:
    return sum(math.prod(i.dims) for i in proto.graph.initializer)


def _types(proto: onnx.ModelProto, names: list[str]) -> dict[str, int]:
    """Element types of values that nodes compute, as onnxruntime infers them."""
    found = sessions.make(_with_outputs(proto, names).SerializeToString()).get_outputs()
    return {o.name: _ELEMENTS.get(o.type, TensorProto.UNDEFINED) for o in found}


def run(
    model: ir.Model | onnx.ModelProto, data: Mapping[str, np.ndarray], outputs: Iterable[str] | None = None
) -> Arrays:
    """Run ``model`` once on ``data`` (any number of samples) and return arrays by output name."""
    return Session(model, outputs).run_batched(data)


def run_nodes(
    nodes: Sequence[ir.Node], values: Mapping[ir.Value, np.ndarray], wanted: Sequence[ir.Value], opset: int
) -> list[np.ndarray]:
    """Run a few nodes of a graph by themselves, in the given order.

    Args:
        nodes: The nodes, topologically sorted.
        values: Arrays for the values that they read and do not produce; initializers are found by themselves.
        wanted: The values to return.
        opset: ai.onnx opset of the graph.
    """
    return run_nodes_often(nodes, [values], wanted, opset)[0]


def run_nodes_often(
    nodes: Sequence[ir.Node],
    runs: Sequence[Mapping[ir.Value, np.ndarray]],
    wanted: Sequence[ir.Value],
    opset: int,
) -> list[list[np.ndarray]]:
    """As ``run_nodes``, on several sets of values of the same types and ranks."""
    part = Part(nodes, runs[0], wanted, opset)
    session = _session_of(part)
    results = [session.run(part.inputs | {k: run[v] for v, k in part.given.items()}) for run in runs]
    return [[found[name] for name in part.wanted] for found in results]


def _session_of(part: Part) -> Session:
    """A session for some nodes; small ones are kept, as passes ask the same of the same nodes many times."""
    if part.key is None or part.elements > sessions.MAX_ONE_THREAD_ELEMENTS:
        return Session(part.proto(), given=part.elements)
    with _LOCK:
        found = _SESSIONS.pop(part.key, None) or Session(part.proto(), kept=True)
        _SESSIONS[part.key] = found
        if len(_SESSIONS) > _MAX_KEPT_SESSIONS:
            del _SESSIONS[next(iter(_SESSIONS))]
    return found


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    copy = _copy(proto)
    del copy.graph.output[:]
    # onnxruntime infers the types; an input asked for as an output needs a copy of its own.
    given = {i.name for i in copy.graph.input} | {i.name for i in copy.graph.initializer}
    for name in names:
        if name in given:
            raise ModelError("a graph input was asked for as an output", found=name)
        copy.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return copy
