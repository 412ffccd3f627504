"""Where encryption starts: the client computes what lies before, and training leaves it as it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ....analysis.outputs.classes import scores
from ....ir import runtime
from ....ir.graph import variable_inputs
from .reading import quantizers


def client_nodes(model: ir.Model) -> set[ir.Node]:
    """What computes on inputs that are not encrypted yet: embeddings, Gather, normalization of inputs."""
    starts = {q.quantize for q in quantizers(model)}
    outside: set[ir.Value] = set(model.graph.inputs)
    found = set()
    for node in model.graph:
        given = variable_inputs(node)
        if given and node not in starts and all(v in outside for v in given):
            found.add(node)
            outside.update(node.outputs)
    return found


def entries(model: ir.Model) -> list[ir.Value]:
    """The values that the encrypted part starts from, in graph order: graph inputs, or what is made of them.

    Args:
        model: A model of the qdq level.
    """
    client, asked = client_nodes(model), scores(model)
    known = [*model.graph.inputs, *(o for n in model.graph if n in client for o in n.outputs)]
    return [v for v in known if v in asked or any(r not in client for r in v.consumers())]


def entering(model: ir.Model, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What ``entries`` hold for given inputs, samples on axis 0.

    Args:
        model: A model of the qdq level.
        data: Graph inputs by name.
    """
    values = entries(model)
    names = [str(v.name) for v in values if v.producer() is not None]
    made = runtime.Session(model, names).run_batched(data) if names else {}
    return [np.asarray(made[str(v.name)] if str(v.name) in made else data[str(v.name)]) for v in values]
