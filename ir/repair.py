"""Small faults that exporters leave in files and that have one plain remedy."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from . import walk
from .names import fresh
from .opsets import target_opset

_VERSIONS = {"com.microsoft": 1, "ai.onnx.ml": 3}
"""Domains that files use without importing them, and the version that is meant."""

_LAST_OPSET_OF_REQUIRED_ROI = 12
"""Up to this opset Resize must be given its input ``roi``."""

_INITIALIZERS_ARE_INPUTS = 3
"""Up to this IR version every initializer has to be a graph input too."""


def repair(proto: onnx.ModelProto) -> None:
    """Mend ``proto`` in place.

    Imports of known domains that are missing or stand twice, a ``roi`` that is left out of a Resize, an opset
    that is newer than any of the operators, and an IR version older than the file's initializers.

    QONNX's domains are imported by ``ir.qonnx``.
    """
    _import_domains(proto)
    _lower_opset(proto)
    _fill_roi(proto)
    if proto.ir_version == _INITIALIZERS_ARE_INPUTS:
        given = {i.name for i in proto.graph.input}
        if any(t.name not in given for t in proto.graph.initializer):
            proto.ir_version += 1


def _lower_opset(proto: onnx.ModelProto) -> None:
    """Lower an opset that is too new for the installed onnxruntime, where all operators are the same before.

    onnx writes the newest opset that it knows where its user names none.
    """
    imported = next((o for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    target = target_opset()
    if imported is None or proto.functions or not target < imported.version <= defs.onnx_opset_version():
        return
    for node in walk.nodes(proto):
        if node.domain not in ("", "ai.onnx") or not defs.has(node.op_type, imported.version, ""):
            continue
        if defs.get_schema(node.op_type, imported.version, "").since_version > target:
            return
    imported.version = target


def _import_domains(proto: onnx.ModelProto) -> None:
    versions: dict[str, int] = {}
    for given in proto.opset_import:
        domain = "" if given.domain == "ai.onnx" else given.domain
        versions[domain] = max(given.version, versions.get(domain, 0))
    if len(versions) < len(proto.opset_import):
        del proto.opset_import[:]
        proto.opset_import.extend(helper.make_opsetid(k, v) for k, v in versions.items())
    imported = {o.domain for o in proto.opset_import}
    used = {n.domain for n in walk.nodes(proto)}
    for domain in sorted(used - imported):
        if domain in _VERSIONS:
            proto.opset_import.append(helper.make_opsetid(domain, _VERSIONS[domain]))


def _fill_roi(proto: onnx.ModelProto) -> None:
    """Opset 11 and 12 want a ``roi``, which onnxruntime does without; what crops by it needs it anyway."""
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version > _LAST_OPSET_OF_REQUIRED_ROI:
        return
    bare = [
        n
        for n in walk.nodes(proto)
        if n.op_type == "Resize" and not n.domain and len(n.input) > 1 and not n.input[1]
    ]
    if bare:
        taken = {t.name for t in proto.graph.initializer} | {o for n in walk.nodes(proto) for o in n.output}
        name = fresh("no_roi", taken | {i.name for i in proto.graph.input})
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), name))
        for node in bare:
            node.input[1] = name
