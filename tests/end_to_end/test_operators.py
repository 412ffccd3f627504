"""Operators on encrypted tensors, each from float over qdq and integers to a circuit."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import operator_networks
import pytest

from onnx_fhe.analysis.regions.elementwise import ElementwiseProbe
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.checking import check_against
from onnx_fhe.backends.reference import ReferenceBackend
from onnx_fhe.ir.errors import UnsupportedError
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.runtime import run
from onnx_fhe.testing import pipelines, zoo

NETWORKS, Builder, samples = operator_networks.NETWORKS, zoo.Builder, zoo.samples
FINE = "quantize{weights=7 activations=7 inputs=7 operands=5}"
COARSE = "quantize{weights=2 activations=3 inputs=3 operands=2}"
TOLERANCE = {"comparison": 0.5, "conditions": 0.5, "choice": 0.5, "encrypted_slope": 0.25, "embedding": 0.25}
"""A value near a threshold may fall on its other side; pairs of all values leave few bits for each."""


def stages(proto: onnx.ModelProto, quantize: str, count: int = 48) -> tuple[dict[str, ir.Model], dict]:
    data = samples(proto, count)
    return dict(pipelines.stages(proto, data, quantize)), data


@cache
def fine(name: str) -> tuple[dict[str, ir.Model], dict]:
    return stages(NETWORKS[name](), FINE)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root of the mean squared difference over the deviation of what is wanted."""
    return float(np.sqrt(((found - wanted) ** 2).mean() / max(wanted.var(), 1e-12)))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_stage_computes_the_one_before(name):
    models, data = fine(name)
    wanted = pipelines.first(run(NETWORKS[name](), data))
    found = {k: pipelines.outputs(m, data) for k, m in models.items()}
    np.testing.assert_allclose(found["normalize"], wanted, rtol=1e-4, atol=1e-5)
    assert error(found["quantize"], wanted) < TOLERANCE.get(name, 0.16)
    # Integers are exact; a tie may round to either side, in very few places.
    scale = np.abs(wanted).max()
    off = np.abs(found["lower-to-integer"] - found["quantize"]) > 1e-4 * scale
    assert off.mean() < 0.02
    np.testing.assert_allclose(found["fuse-tlu"], found["lower-to-integer"], rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_lookups_compute_what_the_operators_did(name):
    """``lower-to-lookups`` inside the backend, against the integer model that still has the operators."""
    models, _ = fine(name)
    circuit = ReferenceBackend().lower(models["fuse-tlu"])
    _, values = pipelines.random_integers(models["fuse-tlu"], 32)
    compared = check_against(models["fuse-tlu"], circuit, values)
    assert compared.samples > 0
    left = {n.op_type for n in circuit.server.graph}
    assert not left & {"MaxPool", "ReduceMax", "ReduceMin", "Max", "Min", "PairLookup"}


@pytest.mark.parametrize(
    ("name", "bootstraps"),
    [
        ("slice_rows", 48),
        ("pad_with_a_constant", 18 + 8),
        ("concat_of_two_scales", 18 + 9 + 2),
        ("depth_to_space", 32),
        ("max_pool_overlapping", 32 + 36),
        ("gated", None),
        ("attention", None),
        ("conditions", None),
    ],
)
def test_concrete_compiles_it(name, bootstraps):
    """Its own evaluation in the clear equals the integer model; moving elements takes no bootstrap."""
    from onnx_fhe.backends.concrete.backend import ConcreteBackend

    models, _ = stages(NETWORKS[name](), COARSE)
    model = models["fuse-tlu"]
    circuit = ConcreteBackend().lower(model, LowerOptions(parameter_strategy="mono"))
    _, values = pipelines.random_integers(model, 6)
    assert check_against(model, circuit, values).samples > 0
    found = circuit.statistics().programmable_bootstraps
    assert found == ReferenceBackend().lower(model).statistics().programmable_bootstraps
    assert bootstraps is None or found == bootstraps


def element_wise() -> list[str]:
    """Operators of one float tensor, of the newest opset, that onnxruntime computes element by element."""
    newest: dict[str, onnx.defs.OpSchema] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain or schema.deprecated or schema.since_version > target_opset():
            continue
        if schema.name not in newest or schema.since_version > newest[schema.name].since_version:
            newest[schema.name] = schema
    probe, found = ElementwiseProbe(target_opset()), []
    for name, schema in sorted(newest.items()):
        if schema.min_input > 1 or schema.max_input < 1 or schema.min_output > 1:
            continue
        x = ir.Value(name="x", shape=ir.Shape([2, 3, 4]), type=ir.TensorType(ir.DataType.FLOAT))
        attributes = [ir.AttrInt64("to", 1)] if name == "Cast" else []
        node = ir.Node("", name, [x], attributes, num_outputs=1)
        node.outputs[0].name = "y"
        if probe(node, [x]):
            found.append(name)
    return found


ELEMENT_WISE = [n for n in element_wise() if n not in {"EyeLike", "Optional", "Split", "Squeeze", "Trilu"}]
"""Without those that look at places, return no tensor, or want to be told how."""


def test_the_list_is_a_list() -> None:
    assert {"Relu", "Gelu", "Mish", "Erf", "HardSwish", "ThresholdedRelu", "IsNaN"} <= set(ELEMENT_WISE)
    assert len(ELEMENT_WISE) >= 45


@pytest.mark.parametrize("op", ELEMENT_WISE)
def test_every_element_wise_operator(op):
    """Drawn from onnx's own schemas: what a new opset brings is tried the day that it is installed."""
    b = Builder(target_opset(), 3)
    x = b.node("Abs", b.dense("input", 3, 4))
    x = b.node("Add", x, b.constant(1.05)) if op == "Acosh" else b.node("Mul", x, b.constant(0.35))
    attributes = {"to": 1} if op == "Cast" else {}
    y = b.node("Cast", b.node(op, x, **attributes), to=1)
    proto = b.model(b.dense(y, 4, 2), [3], [2])
    models, data = stages(proto, "quantize{weights=6 adapt=0 refit=false}", 24)
    found = {k: pipelines.outputs(m, data) for k, m in models.items()}
    off = np.abs(found["fuse-tlu"] - found["quantize"]) > 1e-4
    assert off.mean() < 0.05
    circuit = ReferenceBackend().lower(models["fuse-tlu"])
    _, values = pipelines.random_integers(models["fuse-tlu"], 8)
    assert check_against(models["fuse-tlu"], circuit, values).samples > 0


@pytest.mark.parametrize("op", ["Hardmax", "ArgMax"])
def test_what_is_refused_says_why_and_what_to_do(op):
    b = Builder(17, 4)
    x = b.node("Relu", b.conv("input", 1, 17))  # more than all pairs are compared of
    y = b.node("Cast", b.node(op, x, axis=1), to=1)
    proto = b.model(b.dense(b.node("Flatten", y), (17 if op != "ArgMax" else 1) * 9, 2), [1, 5, 5], [2])
    with pytest.raises(UnsupportedError) as refused:
        stages(proto, FINE)
    message = str(refused.value)
    assert f"({op})" in message
    assert f"{op} cannot be computed on encrypted data:" in message
    assert refused.value.do


def test_a_network_without_a_linear_layer_is_encrypted_whole() -> None:
    b = Builder(17, 5)
    x = b.node("Tanh", b.node("Relu", "input"))
    proto = b.model(b.node("Softmax", x, axis=1), [4], [4])  # Softmax is left to the client
    models, data = stages(proto, FINE)
    wanted = pipelines.first(run(proto, data))
    assert error(pipelines.outputs(models["fuse-tlu"], data), wanted) < 0.05
    statistics = ReferenceBackend().lower(models["fuse-tlu"]).statistics()
    assert statistics.programmable_bootstraps == 4


@pytest.mark.parametrize(
    ("op", "attributes", "lookups"),
    [
        ("Max", {}, 4),
        ("Mul", {}, 12),
        ("Add", {}, 0),
        ("Concat", {"axis": 1}, 0),
        ("Less", {}, 4),
    ],
)
def test_one_operator_of_two_inputs(op, attributes, lookups):
    b = Builder(17, 6)
    y = b.node(op, "left", "right", **attributes)
    y = b.node("Cast", y, to=1) if op == "Less" else y
    proto = b.model(y, [4], [8 if op == "Concat" else 4], inputs=("left", "right"))
    models, data = stages(proto, FINE)
    wanted = pipelines.first(run(proto, data))
    assert error(pipelines.outputs(models["fuse-tlu"], data), wanted) < (0.4 if op == "Less" else 0.1)
    statistics = ReferenceBackend().lower(models["fuse-tlu"]).statistics()
    assert statistics.programmable_bootstraps == lookups
