"""Public features and a readout: no bootstrap, close to the network, and nothing of it at the client."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnx_fhe
from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.ir.errors import DataError, UnsupportedError
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.client.lift_features.candidates import candidates, columns
from onnx_fhe.passes.client.lift_features.families import Family
from onnx_fhe.passes.client.lift_features.lift_features import LiftFeatures
from onnx_fhe.passes.client.lift_features.readout import Sums
from onnx_fhe.passes.client.lift_features.search import FeatureSearch
from onnx_fhe.passes.client.lift_features.statistics import describe
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.prologue import standalone
from onnx_fhe.testing import zoo
from onnx_fhe.testing.builder import Builder
from onnx_fhe.testing.pipelines import dense, imported, text

LIFT = "normalize,lift-features{{features=64{more}}}"
REST = "quantize{weights=8 activations=8},lower-to-integer,fuse-tlu"


def lifted(proto: onnx.ModelProto, data: dict, more: str = "") -> tuple[ir.Model, Context]:
    """The integer model, and the context of the run."""
    manager = PassManager.parse(f"{LIFT.format(more=more)},{REST}")
    result = manager.run(imported(proto), Context(calibration=data))
    return result.model, result.context


@pytest.mark.parametrize("network", ["mlp", "cnn", "two_inputs", "residual_cnn", "softmax_end", "argmax_end"])
def test_no_bootstrap_is_left_and_outputs_are_followed(network: str):
    proto = zoo.NETWORKS[network]()
    data, new = zoo.samples(proto, 300), zoo.samples(proto, 100, seed=5)
    integer, context = lifted(proto, data)
    assert estimate(integer).bootstraps == 0
    for name, wanted in run(imported(proto), new).items():
        found = run(integer, new)[name]
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype
        if wanted.dtype == np.float32:
            assert np.mean((found - wanted) ** 2) < 0.5 * wanted.var()
    assert context.findings.expected[0].samples == 300
    assert "without a bootstrap" in context.notes[0]


def test_two_networks_have_clients_that_compute_the_same():
    first, second = dense(6, 8, 3, seed=1), dense(6, 8, 3, seed=2)
    data = zoo.samples(first, 200)
    prologues = []
    for proto in (first, second):
        integer, _ = lifted(proto, data, " family=cosines")
        prologue, ranges = standalone(partition(integer))
        prologues.append(
            ({w.name: onnx.numpy_helper.to_array(w) for w in prologue.graph.initializer}, ranges)
        )
    (weights, ranges), (others, other_ranges) = prologues
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)
    assert [(r.low, r.high) for r in ranges] == [(r.low, r.high) for r in other_ranges]


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


@pytest.mark.parametrize("family", ["cosines", "convolutions", "bins", "inputs"])
def test_smaller_relatives_are_the_first_of_larger_ones(family: str):
    proto = zoo.cnn() if family == "convolutions" else zoo.mlp()
    data = zoo.samples(proto, 50)
    model = imported(proto)
    search = FeatureSearch(
        list(model.graph.inputs), data, lambda _: np.zeros((50, 1)), "values", 0.0, 64, family, 3, quiet
    )
    tried = candidates(search.known, 64, family)
    assert tried
    for candidate in tried:
        scales = search._scales(candidate.family)
        large = next(iter(run(search.model(candidate.family, scales), data).values()))
        small = Family(**{**vars(candidate.family), "size": candidate.sizes[0]})
        chosen = columns(search.known, candidate.family, candidate.sizes[0])
        wanted = next(iter(run(search.model(small, scales), data).values()))
        np.testing.assert_allclose(large[:, chosen], wanted, atol=1e-5)
        assert np.abs(large).max() < 4


def test_categories_become_columns():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["N", 2]))
    (known,) = describe([x], {"x": np.asarray([[0, 1], [2, 1]])})
    assert known.categories == 3
    assert known.standardised(np.asarray([[2, 0]])).tolist() == [[0, 0, 1, 1, 0, 0]]


def test_a_readout_is_what_least_squares_find():
    random = np.random.default_rng(0)
    features = random.uniform(-1, 1, (500, 6)).astype(np.float32)
    weights = random.normal(size=(2, 6))
    sums = Sums.of(features, features @ weights.T + 3)
    found = sums.fit(1e-9, np.arange(6))
    np.testing.assert_allclose(found.weights, weights, atol=1e-3)
    np.testing.assert_allclose(found(features), features @ weights.T + 3, atol=1e-3)


def test_too_few_samples_are_refused():
    proto = zoo.mlp()
    with pytest.raises(DataError, match="so few samples"):
        LiftFeatures(context=Context(calibration=zoo.samples(proto, 10)))(imported(proto))


@pytest.mark.parametrize(
    ("end", "kind"), [("Sigmoid", "values"), ("Softmax", "classes"), ("Identity", "classes")]
)
def test_regressors_are_judged_by_values_and_classifiers_by_classes(end: str, kind: str):
    b = Builder(17, seed=4)
    hidden = b.node("Relu", b.dense("input", 5, 8))
    scale = b.constant(np.float32(8.0))
    proto = b.model(b.node(end, b.node("Mul", b.dense(hidden, 8, 3), scale)), [5], [3])
    _, context = lifted(proto, zoo.samples(proto, 200))
    assert context.findings.expected[0].kind == kind


def test_what_cannot_run_encrypted_in_the_middle_is_no_obstacle():
    body = """(float[N, 6] x) => (float[N, 2] y) {
        hidden = Gemm <transB = 1> (x, w1, b1)
        likely = Softmax <axis = 1> (hidden)
        sorted, places = TopK <axis = 1> (likely, k)
        y = Gemm <transB = 1> (sorted, w2, b2)
    }"""
    random = np.random.default_rng(0)
    shapes = {"w1": (5, 6), "b1": (5,), "w2": (2, 3), "b2": (2,)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    proto = text(body, **weights, k=np.asarray([3]))
    data = zoo.samples(proto, 200)
    with pytest.raises(UnsupportedError):
        onnx_fhe.compile(imported(proto), data, backend="reference")
    pipeline = f"{LIFT.format(more='')},{REST}"
    options = {"backend": "reference", "accept_loss": True}
    program = onnx_fhe.compile(imported(proto), data, pipeline, **options)
    assert program.statistics.programmable_bootstraps == 0
