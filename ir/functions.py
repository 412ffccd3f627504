"""Operators of other domains that somebody outside has given a body, so that onnxruntime runs them.

As with the dialect, a model in memory holds such operators without bodies; sessions and files get them
(``attach``), and loading takes them off again (``strip``), so that the operator stays one node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .errors import PluginError

if TYPE_CHECKING:
    import onnx

Bodies = Mapping[tuple[str, str], "onnx.FunctionProto"]


def _qonnx() -> Bodies:
    from . import qonnx

    return qonnx.bodies()


def _seeded() -> Bodies:
    from . import seeded

    return seeded.bodies()


_sources: list[Callable[[], Bodies]] = [_qonnx, _seeded]
_described: dict[tuple[str, str], onnx.FunctionProto] = {}
"""What the registered schemas were made of."""


def add_source(source: Callable[[], Bodies]) -> None:
    """Have ``source`` asked for bodies by (domain, name), whenever a model uses a domain not of ONNX."""
    if source not in _sources:
        _sources.append(source)


def body_of(domain: str, op_type: str) -> onnx.FunctionProto | None:
    """The body of an operator, if a source has one; onnx knows the operator from then on."""
    if is_standard(domain):
        return None
    for source in _sources:
        body = source().get((domain, op_type))
        if body is not None:
            _describe(body)
            return body
    return None


def is_standard(domain: str) -> bool:
    """Whether a domain is ONNX's own or the dialect's."""
    return domain in ("", "onnx_fhe") or domain == "ai.onnx" or domain.startswith("ai.onnx.")


def attach(proto: onnx.ModelProto) -> None:
    """Add the bodies of the operators that ``proto`` uses, of those that these call, and their domains."""
    from onnx.helper import make_opsetid

    from . import walk

    present = {(f.domain, f.name) for f in proto.functions}
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    added: list[onnx.FunctionProto] = []
    while True:
        used = {(n.domain, n.op_type) for n in walk.nodes(proto) if not is_standard(n.domain)} - present
        bodies = [b for key in sorted(used) if (b := body_of(*key)) is not None]
        if not bodies:
            break
        added += bodies
        for body in bodies:
            present.add((body.domain, body.name))
            proto.functions.append(at_opset(body, opset))
    imported = {o.domain for o in proto.opset_import}
    for domain in sorted({b.domain for b in added} - imported):
        proto.opset_import.append(make_opsetid(domain, 1))


def strip(proto: onnx.ModelProto) -> None:
    """Take off the bodies that ``attach`` gives again; others of the same name mean something else."""
    kept = []
    for function in proto.functions:
        body = body_of(function.domain, function.name)
        if body is None or list(body.node) != list(function.node):
            kept.append(function)
    if len(kept) < len(proto.functions):
        del proto.functions[:]
        proto.functions.extend(kept)


def at_opset(body: onnx.FunctionProto, opset: int) -> onnx.FunctionProto:
    """A copy of ``body`` that imports this ai.onnx opset: onnx wants one for a whole model."""
    copy = type(body)()
    copy.CopyFrom(body)
    for imported in copy.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = opset
    return copy


def check(body: onnx.FunctionProto) -> None:
    """Refuse a body that is no valid operator in the opset that models are kept in.

    Raises:
        PluginError: It is not.
    """
    from onnx import checker

    from .opsets import target_ir_version, target_opset

    context = checker.C.CheckerContext()
    context.ir_version = target_ir_version()
    versions = {o.domain: o.version for o in body.opset_import} | {body.domain: 1, "": target_opset()}
    context.opset_imports = versions
    try:
        checker.check_function(at_opset(body, target_opset()), context)
    except Exception as error:
        raise PluginError(
            f"the body of {body.domain}::{body.name} is not valid ONNX of opset {target_opset()}",
            found=str(error).strip()[:400],
            do=f"write it with operators as they are in opset {target_opset()}",
        ) from error


def _describe(body: onnx.FunctionProto) -> None:
    """Register a schema, so that checker and shape inference know the operator."""
    from onnx import defs

    key = body.domain, body.name
    if _described.get(key) == body:
        return
    if key in _described:
        defs.deregister_schema(body.name, 1, body.domain)
    _described[key] = body
    optional, single = (
        defs.OpSchema.FormalParameterOption.Optional,
        defs.OpSchema.FormalParameterOption.Single,
    )
    identity = defs.get_schema("Identity").type_constraints[0]
    every = [t for t in identity.allowed_type_strs if t.startswith("tensor(")]
    names = [*(f"T{i}" for i in range(len(body.input))), *(f"R{i}" for i in range(len(body.output)))]
    schema = defs.OpSchema(
        body.name,
        body.domain,
        1,
        body.doc_string,
        inputs=[
            defs.OpSchema.FormalParameter(name, f"T{i}", param_option=optional if i else single)
            for i, name in enumerate(body.input)
        ],
        outputs=[defs.OpSchema.FormalParameter(name, f"R{i}") for i, name in enumerate(body.output)],
        type_constraints=[(name, every, "any tensor") for name in names],
        attributes=_attributes(body),
    )
    schema.set_type_and_shape_inference_function(_inference(body))
    defs.register_schema(schema)


def _attributes(body: onnx.FunctionProto) -> list[onnx.defs.OpSchema.Attribute]:
    """Those with a default, and those that a node must give (their types: where the body refers to them)."""
    from onnx import AttributeProto, defs

    given = [defs.OpSchema.Attribute(a.name, a, "") for a in body.attribute_proto]
    types = {a.ref_attr_name: a.type for n in body.node for a in n.attribute if a.ref_attr_name}
    needed = []
    for name in body.attribute:
        kind = AttributeProto.AttributeType.Name(types.get(name, AttributeProto.FLOAT))
        needed.append(defs.OpSchema.Attribute(name, getattr(defs.OpSchema.AttrType, kind), "", required=True))
    return [*given, *needed]


def _attribute(context: onnx.shape_inference.InferenceContext, name: str) -> onnx.AttributeProto | None:
    """What a node gives for an attribute (the stubs do not say that it may be nothing)."""
    return context.get_attribute(name)


def _inference(body: onnx.FunctionProto) -> Callable[[onnx.shape_inference.InferenceContext], None]:
    from onnx import shape_inference

    from .opsets import target_opset

    def infer(context: onnx.shape_inference.InferenceContext) -> None:
        types = [context.get_input_type(i) for i in range(context.get_num_inputs())]
        if any(t is None for t in types):
            return
        names = [*body.attribute, *(a.name for a in body.attribute_proto)]
        attributes = [a for n in names if (a := _attribute(context, n)) is not None]
        found = shape_inference.infer_function_output_types(at_opset(body, target_opset()), types, attributes)
        for i in range(min(context.get_num_outputs(), len(found))):
            context.set_output_type(i, found[i])

    return infer
