"""Small faults that exporters leave in files and that have one plain remedy."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from . import walk
from .names import fresh

_VERSIONS = {"com.microsoft": 1, "ai.onnx.ml": 3}
"""Domains that files use without importing them, and the version that is meant."""

_LAST_OPSET_OF_REQUIRED_ROI = 12


def repair(proto: onnx.ModelProto) -> None:
    """Mend ``proto`` in place.

    Imports of known domains that are missing or stand twice, and a ``roi`` that is left out of a Resize.

    QONNX's domains are imported by ``ir.qonnx``.
    """
    _import_domains(proto)
    _fill_roi(proto)


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
