"""Splitting an integer-level model at the edges of its encrypted region.

The client runs the prologue (graph inputs to the values that are encrypted) and the epilogue (decrypted
values to graph outputs); only the server part works on ciphertexts. onnxruntime runs all three.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from .dialect import DOMAIN
from .errors import ModelError
from .graph import is_dialect
from .level import Level, set_level
from .placement import placements_of


@dataclass(frozen=True)
class Parts:
    """The three parts of a model.

    Attributes:
        prologue: Graph inputs to what each ``Encrypt`` is fed; outputs are named as the Encrypt outputs.
        server: ``Encrypt`` to ``Decrypt`` inclusive; inputs are named as the Encrypt outputs, outputs as the
            Decrypt outputs.
        epilogue: Decrypt outputs, and those graph inputs that bypass the server, to the graph outputs.
    """

    prologue: ir.Model
    server: ir.Model
    epilogue: ir.Model


def partition(model: ir.Model) -> Parts:
    """Split ``model`` (integer level; it stays as it is) into prologue, server part and epilogue.

    Raises:
        ModelError: There is no encrypted region.
        UnsupportedError: A value is encrypted that depends on a decrypted one (two rounds with the client).
        VerificationError: Something enters or leaves the encrypted region without ``Encrypt`` or ``Decrypt``.
    """
    model = model.clone()
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    encrypts = [n for n in model.graph if is_dialect(n, "Encrypt")]
    decrypts = [n for n in model.graph if is_dialect(n, "Decrypt")]
    if not encrypts or not decrypts:
        raise ModelError(
            "the model has no encrypted region",
            found=f"{len(encrypts)} Encrypt and {len(decrypts)} Decrypt nodes",
            allowed="at least one of each",
            do="put quantize and lower-to-integer in the pipeline",
        )
    placements_of(model)  # refuses what cannot be split
    if any(v.shape is None for v in _edges(encrypts, decrypts)):
        ShapeInferencePass()(model)
    return Parts(_prologue(model, encrypts), _server(model, encrypts, decrypts), _epilogue(model, decrypts))


def _edges(encrypts: Iterable[ir.Node], decrypts: Iterable[ir.Node]) -> list[ir.Value]:
    return [n.outputs[0] for n in (*encrypts, *decrypts)]


def _prologue(model: ir.Model, encrypts: Sequence[ir.Node]) -> ir.Model:
    fed = [n.inputs[0] for n in encrypts]
    distinct = list(dict.fromkeys(v for v in fed if v is not None))
    graph = ir.convenience.extract(model.graph, list(model.graph.inputs), distinct)
    copies = dict(zip(distinct, graph.outputs, strict=True))
    graph.outputs.clear()
    for encrypt, source in zip(encrypts, fed, strict=True):
        # An Identity, even where a rename would do: the source may be a graph input, or feed two Encrypts.
        assert source is not None
        named = _like(encrypt.outputs[0])
        node = ir.node("Identity", [copies[source]], outputs=[named], name=f"{encrypt.name}/input")
        graph.append(node)
        graph.outputs.append(named)
    return _model(model, graph, Level.FLOAT)


def _server(model: ir.Model, encrypts: Sequence[ir.Node], decrypts: Sequence[ir.Node]) -> ir.Model:
    starts = [n.outputs[0] for n in encrypts]
    graph = ir.convenience.extract(model.graph, starts, [n.outputs[0] for n in decrypts])
    taken = {v.name for n in graph for v in n.outputs} | {v.name for v in graph.inputs}
    for encrypt, fed in zip(reversed(encrypts), reversed(graph.inputs), strict=True):
        inner = _like(encrypt.outputs[0], _free_name(f"{fed.name}/encrypted", taken))
        node = ir.Node(
            DOMAIN, "Encrypt", [fed], list(encrypt.attributes.values()), outputs=[inner], name=encrypt.name
        )
        node.metadata_props.update(encrypt.metadata_props)
        uses = [u for u in fed.uses() if u.node is not node]
        for user, index in uses:
            user.replace_input_with(index, inner)
        first = next(iter(graph), None)
        if first is None:
            graph.append(node)
        else:
            graph.insert_before(first, node)
    return _model(model, graph, Level.INTEGER)


def _epilogue(model: ir.Model, decrypts: Sequence[ir.Node]) -> ir.Model:
    ends = [n.outputs[0] for n in decrypts]
    given = [v for v in model.graph.inputs if v not in ends]
    graph = ir.convenience.extract(model.graph, [*ends, *given], list(model.graph.outputs))
    for value in list(graph.inputs)[len(ends) :]:
        if not value.uses() and value not in graph.outputs:
            graph.inputs.remove(value)
    return _model(model, graph, Level.FLOAT)


def _like(value: ir.Value, name: str | None = None) -> ir.Value:
    """A new value with the type and shape of ``value`` (float32 where the type is not known)."""
    kind = value.type or ir.TensorType(ir.DataType.FLOAT)
    return ir.Value(name=name or value.name, type=kind, shape=value.shape.copy() if value.shape else None)


def _free_name(wanted: str, taken: set[str | None]) -> str:
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def _model(source: ir.Model, graph: ir.Graph, level: Level) -> ir.Model:
    for value in (*graph.inputs, *graph.outputs):
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    part = ir.Model(
        graph,
        ir_version=source.ir_version,
        producer_name=source.producer_name,
        producer_version=source.producer_version,
        metadata_props=dict(source.metadata_props),
    )
    set_level(part, level)
    return part
