"""Which values of a model depend on the samples, and on which axis they have them."""

from __future__ import annotations

import onnx_ir as ir

BATCH = "N"
"""Name of the samples' axis in models that ``normalize`` has seen."""


def depending(model: ir.Model) -> frozenset[str]:
    """The outputs that are computed of an input; the others are the same for all samples, and have none."""
    reached = set(model.graph.inputs)
    for node in model.graph:
        inner = any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()
        )
        if inner or any(v in reached for v in node.inputs):
            reached.update(node.outputs)
    return frozenset(str(o.name) for o in model.graph.outputs if o in reached)


def axis_of(value: ir.Value | None) -> int | None:
    """The axis that is named for the samples; None where there is none, or no shape is known."""
    if value is None or value.shape is None:
        return None
    named = [i for i, d in enumerate(value.shape) if isinstance(d, ir.SymbolicDim) and d.value == BATCH]
    return named[0] if len(named) == 1 else None


def is_clear(value: ir.Value) -> bool:
    """Whether the shape of a value says where its samples are: named once, or all sizes are known."""
    if value.shape is None:
        return False
    open_axes = [d for d in value.shape if not isinstance(d, int)]
    return not open_axes or (len(open_axes) == 1 and axis_of(value) is not None)
