"""Running an ONNX model in onnxruntime, whole or a few of its nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from . import dialect, inlining, samples, sessions
from .errors import ModelError
from .exact import exact
from .parts import Part

Arrays = dict[str, np.ndarray]
_ELEMENTS = {"tensor(int8)": TensorProto.INT8, "tensor(uint8)": TensorProto.UINT8}
_MAX_KEPT_SESSIONS = 512
"""Sessions for some nodes that are kept for the next run."""
_SESSIONS: dict[tuple[Any, ...], Session] = {}
_LOCK = Lock()
_MIN_BOUND_INPUTS = 512
"""Inputs of a session past which they are bound one by one."""


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


class Session:
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
        proto = _runnable(model) if isinstance(model, ir.Model) else model
        if outputs is not None:
            proto = _with_outputs(proto, list(outputs))
        elif proto is model and inlining.concerns(proto):
            proto = _copy(proto)
        inlining.inline(proto)
        self._session = sessions.make(exact(proto, _types), _weights(proto) + given, kept)
        self.inputs = {i.name: i for i in self._session.get_inputs()}
        self.outputs = [o.name for o in self._session.get_outputs()]

    def run(self, data: Mapping[str, np.ndarray]) -> Arrays:
        """Run one batch: arrays by input name in, arrays by output name out."""
        try:
            if len(self.inputs) > _MIN_BOUND_INPUTS:
                results = self._run_bound(data)
            else:
                results = self._session.run(self.outputs, {k: data[k] for k in self.inputs})
        except Exception as error:
            raise ModelError("onnxruntime cannot run this model", found=str(error).strip()) from error
        return dict(zip(self.outputs, map(_array, results), strict=True))

    def _run_bound(self, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        # The plain run looks for each input in a list of all: quadratic in their number.
        binding = self._session.io_binding()
        for name in self.inputs:
            binding.bind_cpu_input(name, np.ascontiguousarray(data[name]))
        for name in self.outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def batch_size(self) -> int | None:
        """The static size of axis 0 of the inputs, or None when it is free."""
        sizes = {i.shape[0] for i in self.inputs.values() if i.shape}
        static = {s for s in sizes if isinstance(s, int)}
        return next(iter(static)) if len(static) == 1 else None

    def run_batched(
        self,
        data: Mapping[str, np.ndarray],
        batch: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> Arrays:
        """Run any number of samples, in batches of ``batch`` or of the model's static batch size.

        A static batch size that does not divide the number of samples is filled up by repeating the last
        one. With a static size of one, a result that has no axis for it comes back with one in front. What
        does not depend on the samples is returned once.

        Raises:
            UnsupportedError: The samples of an output cannot be told apart.
        """
        total = len(next(iter(data.values())))
        if any(len(data[k]) != total for k in self.inputs):
            return self.run(data)  # axis 0 is no batch
        static = self.batch_size()
        if static:
            return self._run_filled(data, total, static, progress)
        chosen, runs = samples.parts(total, batch), []
        for part in chosen:
            try:
                runs.append(self.run({k: data[k][part] for k in self.inputs}))
            except ModelError:
                if runs or total == 1:
                    raise
                # Some leave the batch free in their inputs, and write one sample into a Reshape.
                return self._run_filled(data, total, 1, progress)
            if progress:
                progress(part.stop, total)
        if len(runs) == 1:
            return runs[0]
        sizes = [p.stop - p.start for p in chosen]
        axes = {k: samples.following([r[k].shape for r in runs], sizes, k) for k in self.outputs}
        return {k: samples.joined([r[k] for r in runs], axis, k) for k, axis in axes.items()}

    def _run_filled(
        self,
        data: Mapping[str, np.ndarray],
        total: int,
        size: int,
        progress: Callable[[int, int], None] | None,
    ) -> Arrays:
        """Batches of the one size that the model takes."""
        runs: list[Arrays] = []
        for start in range(0, total, size):
            chosen = np.minimum(np.arange(start, start + size), total - 1)
            runs.append(self.run({k: data[k][chosen] for k in self.inputs}))
            if progress:
                progress(min(start + size, total), total)
        if size == 1:
            return {k: samples.stacked([r[k] for r in runs]) for k in self.outputs}
        return {k: np.concatenate([r[k] for r in runs])[:total] for k in self.outputs}


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
    found = sessions.make(_with_outputs(proto, names)).get_outputs()
    return {o.name: _ELEMENTS.get(o.type, TensorProto.UNDEFINED) for o in found}


def _array(result: object) -> np.ndarray:
    array = np.asarray(result)
    # Strings (names of classes) come as Python objects, which cannot be written to a file.
    return array.astype(str) if array.dtype == object else array


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
