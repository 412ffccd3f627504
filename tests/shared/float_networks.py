"""Small float networks from text, and what holds for each that a pass leaves."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.runtime import run, to_proto
from onnx_fhe.ir.sampling import random_inputs
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.normalize.normalize import Normalize


def content(model: ir.Model) -> bytes:
    """The model as a file, to see whether anything changed."""
    return to_proto(model).SerializeToString(deterministic=True)


def normal(*size: int, seed: int = 0) -> np.ndarray:
    """Normally distributed numbers."""
    return np.random.default_rng(seed).normal(0, 1, size).astype(np.float32)


def graph(
    body: str, inputs: str = "float[N,3] x", outputs: str = "float[N,2] y", **weights: object
) -> ir.Model:
    """A normalized model from text; a weight given as a shape is random, small enough to stay near 1."""
    proto = parser.parse_model(
        f'<ir_version: {target_ir_version()}, opset_import: ["": {target_opset()}]>\n'
        f"g ({inputs}) => ({outputs}) {{ {body} }}"
    )
    for index, (name, array) in enumerate(weights.items()):
        if isinstance(array, tuple):
            array = normal(*array, seed=index) / np.sqrt(max(1, np.prod(array[1:])))
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type.lower()}{index}"
    model = ir.from_proto(proto)
    Normalize()(model)
    return model


def data_of(model: ir.Model, samples: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs."""
    return random_inputs(list(to_proto(model).graph.input), samples, seed=seed)


def check(model: ir.Model) -> None:
    """What holds for every result: valid, the canonical form, shapes that are those of the arrays."""
    verify(model)
    onnx.checker.check_model(to_proto(model), full_check=True)
    inner = [v for n in model.graph for v in n.outputs if v.name and not v.is_graph_output()]
    found = run(model, data_of(model), [str(v.name) for v in inner]) if inner else {}
    for value in inner:
        shape = [d if isinstance(d, int) else 5 for d in value.shape or []]
        assert shape == list(found[str(value.name)].shape), value.name
