"""Bringing a model to the opset and IR version of ``ir.opsets``, and checking that its outputs stay."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import inliner, version_converter

from . import classical, older, walk
from .conversion_check import check_conversion
from .errors import ModelError
from .graph import LAYOUT
from .guard import FileLimits, check_sizes
from .opsets import target_ir_version, target_opset

_OLDEST_IR = 8
"""Below IR version 4 the converter takes initializers for inputs, and writes new constants as inputs."""

_WIDENED = {
    *LAYOUT,
    "Add",
    "Conv",
    "ConvTranspose",
    "Div",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "Relu",
    "Sub",
}
_WIDENED_SINCE = 13
"""Versions of these operators from this opset on only take more types."""

_AT_RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")


def convert(proto: onnx.ModelProto, limits: FileLimits | None = None) -> onnx.ModelProto:
    """``proto`` with its local functions inlined, in the target opset and IR version.

    Uses the converter of onnx itself: the one of onnxscript relabels old models without changing their nodes.

    Args:
        proto: A checked model without bodies of the dialect; left as it is.
        limits: What a model may ask for when it runs.

    Raises:
        ModelError: It is past a limit, there is no conversion, or the outputs on random inputs differ after
            it.
    """
    before = opset_of(proto)
    if before > target_opset():
        raise ModelError(
            "the model's opset is newer than the installed onnxruntime",
            found=f"opset {before}",
            allowed=f"up to opset {target_opset()}",
            do="export with an older opset, or update onnx and onnxruntime",
        )
    result = _copy(proto)
    _drop_initializer_inputs(result)
    classical.rewrite(result)
    changed = before != target_opset() or bool(proto.functions) or result.graph.node != proto.graph.node
    if result.functions:
        result = _inline(result)
    check_sizes(result, limits or FileLimits())
    result.ir_version = max(result.ir_version, _OLDEST_IR)
    if before != target_opset() and _is_written_the_same(result, before):
        for imported in result.opset_import:
            if imported.domain in ("", "ai.onnx"):
                imported.version = target_opset()
        result = onnx.shape_inference.infer_shapes(result)  # as the converter does
    elif before != target_opset():
        older.adapt(result, before)
        try:
            converted = version_converter.convert_version(result, target_opset())
        except Exception as error:
            raise ModelError(
                f"the model cannot be converted from opset {before} to {target_opset()}",
                found=str(error).strip().splitlines()[-1][:300]
                if str(error).strip()
                else type(error).__name__,
                allowed="opset 7 or later, where onnx has a conversion",
                do="export the model with opset 13 or later",
            ) from error
        older.coordinates(result, converted, before)
        _restore_metadata(result, converted)
        result = converted
    result.ir_version = target_ir_version()
    if changed and not _means_the_same(proto, result, before):
        check_conversion(_runnable(proto), result, before)
    return result


def _is_written_the_same(proto: onnx.ModelProto, opset: int) -> bool:
    """Whether every node is written in the target opset as it was in ``opset``.

    The converter makes its adapters for all operators anew each time, and takes longer than all else here.
    """
    kinds = {(n.op_type, n.domain) for n in proto.graph.node}
    if proto.functions or opset < _WIDENED_SINCE or any(domain for _, domain in kinds):
        return False
    if any(a.HasField("g") or a.graphs for n in proto.graph.node for a in n.attribute):
        return False
    return all(op_type in _WIDENED or _is_unchanged(op_type, "", opset) for op_type, _ in kinds)


def _means_the_same(before: onnx.ModelProto, after: onnx.ModelProto, opset: int) -> bool:
    """Whether two models have the same nodes, all of operators that have not changed since ``opset``.

    Loading large graphs to compare what they compute takes long, and for these it can only be the same.
    """
    if before.functions or len(before.graph.node) != len(after.graph.node):
        return False
    if list(before.graph.initializer) != list(after.graph.initializer):
        return False
    versions: dict[tuple[str, str], bool] = {}
    for old, new in zip(before.graph.node, after.graph.node, strict=True):
        kind = old.op_type, old.domain
        if kind not in versions:
            versions[kind] = _is_unchanged(*kind, opset)
        same = (
            versions[kind]
            and kind == (new.op_type, new.domain)
            and old.input == new.input
            and old.output == new.output
            and list(old.attribute) == list(new.attribute)
        )
        if not same or any(a.HasField("g") or a.graphs for a in old.attribute):
            return False
    return True


def _is_unchanged(op_type: str, domain: str, opset: int) -> bool:
    """Whether an operator of ONNX itself, that computes the same each time, is defined as it was."""
    if domain not in ("", "ai.onnx") or op_type.startswith(_AT_RANDOM):
        return False
    if op_type in LAYOUT:
        return True  # new versions only take more types
    try:
        then, now = (onnx.defs.get_schema(op_type, v, "") for v in (opset, target_opset()))
    except onnx.defs.SchemaError:
        return False
    return bool(then.since_version == now.since_version)


def opset_of(proto: onnx.ModelProto) -> int:
    """The ai.onnx opset that ``proto`` imports."""
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    return int(versions[0]) if versions else target_opset()


def _runnable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in an IR version that onnxruntime runs."""
    copy = _copy(proto)
    _drop_initializer_inputs(copy)
    copy.ir_version = min(max(copy.ir_version, _OLDEST_IR), target_ir_version())
    return copy


def _drop_initializer_inputs(proto: onnx.ModelProto) -> None:
    constant = {i.name for i in proto.graph.initializer}
    kept = [i for i in proto.graph.input if i.name not in constant]
    if len(kept) != len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(kept)


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _inline(proto: onnx.ModelProto) -> onnx.ModelProto:
    # The inliner knows no defaults of attributes: a call that leaves one out would lose it.
    defaults = {(f.domain, f.name): list(f.attribute_proto) for f in proto.functions}
    for node in walk.nodes(proto):
        given = {a.name for a in node.attribute}
        node.attribute.extend(a for a in defaults.get((node.domain, node.op_type), ()) if a.name not in given)
    try:
        # Functions may import another opset than the graph; this converts them on the way.
        return inliner.inline_local_functions(proto, convert_version=True)
    except Exception as error:
        raise ModelError("the model's local functions cannot be inlined", found=str(error).strip()) from error


def _restore_metadata(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """The converter drops the metadata of nodes and values; what still has its name gets it back."""
    nodes = {n.output[0]: n.metadata_props for n in before.graph.node if n.output and n.metadata_props}
    for node in after.graph.node:
        if node.output and node.output[0] in nodes and not node.metadata_props:
            node.metadata_props.extend(nodes[node.output[0]])
    values = {v.name: v.metadata_props for v in _infos(before.graph) if v.metadata_props}
    for value in _infos(after.graph):
        if value.name in values and not value.metadata_props:
            value.metadata_props.extend(values[value.name])


def _infos(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return [*graph.input, *graph.output, *graph.value_info]
