"""prune removes what it was asked to, loses little, and keeps what it promises about accumulators."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import onnx_fhe
from onnx_fhe.analysis.ranges.ranges import SoundRanges
from onnx_fhe.analysis.regions.linear import constant_of, linear_of
from onnx_fhe.analysis.regions.region_analysis import find_regions
from onnx_fhe.ir.errors import DataError, LimitError, PipelineError
from onnx_fhe.ir.ops import Decrypt
from onnx_fhe.ir.range_options import RangeOptions
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.compress.prune import obs
from onnx_fhe.passes.compress.prune.bounds import Limit, input_levels
from onnx_fhe.passes.compress.prune.prune import Prune
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.quantize.weights import damped

TEXT = """
<ir_version: 8, opset_import: ["" : 14]>
net (float[N,2] input) => (float[N,2] output) <
    float[4,2] w1 = {1.0, -2.0, 0.1, 0.2, 3.0, 0.3, -0.4, 5.0},
    float[4] b1 = {0.0, 0.5, 0.0, 0.0},
    float[2,4] w2 = {0.01, 1.0, -1.5, 0.02, 2.0, -0.03, 0.6, 0.7},
    float[2] b2 = {0.0, 0.0}
> {
    hidden = Gemm <transB = 1> (input, w1, b1)
    active = Relu (hidden)
    output = Gemm <transB = 1> (active, w2, b2)
}
"""
LEFT = {
    "neuron": ([[0, -2], [0, 0.2], [3, 0], [0, 5]], [[0, 1, -1.5, 0], [2, 0, 0, 0.7]]),
    "layer": ([[1, -2], [0, 0], [3, 0], [0, 5]], [[0, 1, -1.5, 0], [2, 0, 0, 0.7]]),
    "global": ([[1, -2], [0, 0], [3, 0], [0, 5]], [[0, 1, -1.5, 0], [2, 0, 0, 0.7]]),
}


def prepared(text=TEXT):
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    return PassManager.parse("normalize").run(model).model


def weights(model):
    return [linear.matrix() for n in model.graph if (linear := linear_of(n)) is not None]


def pruned(model, text, data=None, **context):
    return PassManager.parse(text).run(model, Context(calibration=data, **context))


def mlp(seed, sizes=(6, 12, 10, 3), scale=1.0):
    """A random dense network with ReLU, and inputs."""
    random = np.random.default_rng(seed)
    nodes, values, current = [], [], "input"
    for i, (a, b) in enumerate(pairwise(sizes)):
        values.append(
            onnx.numpy_helper.from_array((random.normal(size=(b, a)) * scale).astype(np.float32), f"w{i}")
        )
        values.append(onnx.numpy_helper.from_array(random.normal(size=b).astype(np.float32), f"b{i}"))
        last = i == len(sizes) - 2
        out = "output" if last else f"h{i}"
        nodes.append(
            onnx.helper.make_node("Gemm", [current, f"w{i}", f"b{i}"], [out], name=f"fc{i}", transB=1)
        )
        if not last:
            nodes.append(onnx.helper.make_node("Relu", [out], [f"r{i}"], name=f"relu{i}"))
            current = f"r{i}"
    kinds = [
        onnx.helper.make_tensor_value_info(n, 1, ["N", s])
        for n, s in (("input", sizes[0]), ("output", sizes[-1]))
    ]
    graph = onnx.helper.make_graph(nodes, "net", kinds[:1], kinds[1:], values)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    data = {"input": random.normal(size=(200, sizes[0])).astype(np.float32)}
    return PassManager.parse("normalize").run(ir.serde.deserialize_model(proto)).model, data


@pytest.mark.parametrize("scope", LEFT)
def test_the_smallest_half_goes(scope):
    result = pruned(prepared(), f"prune{{sparsity=0.5 scope={scope}}}")
    assert result.modified
    for found, left in zip(weights(result.model), LEFT[scope], strict=True):
        assert np.allclose(found, left)


def test_layers_may_differ():
    model = prepared()
    first, second = (str(n.name) for n in model.graph if linear_of(n))
    result = pruned(model, f'prune{{layers={{"{second}"=0.75}}}}')
    assert [np.count_nonzero(w == 0) for w in weights(result.model)] == [0, 6]
    result = pruned(model, f'prune{{sparsity=0.25 layers={{"{first}"=1.0}}}}')
    assert [np.count_nonzero(w == 0) for w in weights(result.model)] == [8, 2]


def test_biases_move_to_where_the_mean_was():
    data = {"input": np.random.default_rng(0).normal(1.0, 1.0, (500, 2)).astype(np.float32)}
    model = prepared()
    before, plain = run(model, data)["output"], pruned(model, "prune{sparsity=0.5 refit=false}", data)
    refitted = pruned(model, "prune{sparsity=0.5}", data)
    assert np.allclose(run(refitted.model, data)["output"].mean(0), before.mean(0), atol=1e-4)
    assert not np.allclose(run(plain.model, data)["output"].mean(0), before.mean(0), atol=1e-2)


@pytest.mark.parametrize(
    "text", ["prune{sparsity=0.0}", "prune{sparsity=0.0 method=obs}", "prune{accumulator-bits=20}"]
)
def test_nothing_to_remove_changes_nothing(text):
    model, data = mlp(0)
    result = pruned(model, text, data)
    assert not result.modified
    assert all(np.array_equal(a, b) for a, b in zip(weights(result.model), weights(model), strict=True))


@pytest.mark.parametrize(
    "text", ["prune{sparsity=0.6}", "prune{sparsity=0.6 method=obs}", "prune{accumulator-bits=9}"]
)
def test_pruning_again_changes_nothing(text):
    model, data = mlp(1)
    once = pruned(model, text, data).model
    again = pruned(once, text, data)
    assert not again.modified
    assert np.array_equal(run(once, data)["output"], run(again.model, data)["output"])


@pytest.mark.parametrize("scope", LEFT)
def test_obs_removes_as_many_and_loses_less(digits_mlp, scope):
    model = PassManager.parse("normalize").run(onnx_fhe.load(digits_mlp.model)).model
    data, seen = digits_mlp.calibration_data, digits_mlp.test_data
    wanted = run(model, seen)["logits"]
    errors = {}
    for method in ("l1", "obs"):
        result = pruned(model, f"prune{{sparsity=0.6 method={method} scope={scope}}}", data)
        zeros = sum(np.count_nonzero(w == 0) for w in weights(result.model))
        assert zeros == pytest.approx(0.6 * sum(w.size for w in weights(model)), abs=40)
        errors[method] = ((run(result.model, seen)["logits"] - wanted) ** 2).mean()
    assert errors["obs"] < 0.5 * errors["l1"]


def test_obs_finds_what_is_redundant():
    random = np.random.default_rng(3)
    x = random.normal(size=(400, 6))
    x[:, 3:] = x[:, :3] @ random.normal(size=(3, 3))  # three inputs are sums of the others
    matrix = random.normal(size=(5, 6))
    result = obs.prune_rows(matrix, [x.T @ x / 400], np.full(5, 3), lambda _: True, lambda done, total: None)
    assert (np.count_nonzero(result, axis=1) == 3).all()
    assert np.abs(x @ (result - matrix).T).max() < 0.02 * np.abs(x @ matrix.T).max()


def test_obs_is_the_best_choice_of_two_weights():
    random = np.random.default_rng(4)
    x = random.normal(size=(300, 5)) @ random.normal(size=(5, 5))
    h, row = damped(x.T @ x / 300, obs.DAMPING), random.normal(size=(1, 5))
    result = obs.prune_rows(row, [x.T @ x / 300], np.array([4]), lambda _: True, lambda done, total: None)[0]
    tried = []
    for gone in range(5):
        left = [i for i in range(5) if i != gone]
        best = np.zeros(5)
        best[left] = np.linalg.solve(h[np.ix_(left, left)], h[left] @ row[0])
        tried.append((best - row[0]) @ h @ (best - row[0]))
    assert (result - row[0]) @ h @ (result - row[0]) == pytest.approx(min(tried))


def test_every_network_of_the_zoo_survives(small, tmp_path):
    file = tmp_path / "small.onnx"
    onnx.save(small.proto, file)
    normal = PassManager.parse("normalize").run(onnx_fhe.load(file)).model
    result = pruned(normal, "prune{sparsity=0.3 method=obs}", small.data)
    before, after = run(normal, small.data), run(result.model, small.data)
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    for old, new in zip(weights(normal), weights(result.model), strict=True):
        assert np.count_nonzero(new == 0) >= round(0.3 * old.size)


def test_omega_is_the_documents_bound():
    # (2^8 - 1) / ((2^3 - 1) (2^3 - 1)) = 5.2 weights
    assert Limit(8, 3, 2**3 - 1, "omega", 1.0).omega == 5
    assert Limit(16, 2, 2**2 - 1, "omega", 1.0).omega == 7281
    assert Limit(8, 3, 2**3 - 1, "omega", 2.0).omega == 10


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    bits=st.integers(6, 11),
    widths=st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(1, 5)),
    bound=st.sampled_from(["omega", "l1"]),
    method=st.sampled_from(["l1", "obs"]),
)
def test_no_input_overflows_a_pruned_network(seed, bits, widths, bound, method):
    w, a, i = widths
    model, data = mlp(seed, (5, 16, 12, 3))
    options = f"accumulator-bits={bits} weights={w} activations={a} inputs={i} bound={bound} method={method}"
    quantize = f"quantize{{weights={w} activations={a} inputs={i}"
    # The number of weights is a bound whatever the integers are; by the norm, quantize has to keep to it.
    quantize += f" accumulator-bits={bits}}}" if bound == "l1" else "}"
    text = f"prune{{{options}}},{quantize},lower-to-integer,fuse-tlu"
    try:
        integer = pruned(model, text, data, ranges=RangeOptions("sound")).model
    except LimitError:  # not even one weight fits
        reject()
    check_no_overflow(integer, bits, seed)


def check_no_overflow(model, bits, seed):
    """In exact integer arithmetic no input leaves the declared ranges, and those fit the width."""
    random = np.random.default_rng(seed)
    sound = SoundRanges(model)
    checked = 0
    for node in model.graph:
        if linear_of(node) is None:
            continue
        integers = constant_of(node.inputs[1]).astype(np.int64)
        low, high = (bound.reshape(-1).astype(np.int64) for bound in sound.of(node.inputs[0]))
        # The worst inputs are at the ends that the weights' signs ask for.
        most = np.where(integers > 0, high, low)
        least = np.where(integers > 0, low, high)
        inputs = np.concatenate([most, least, random.integers(low, high + 1, (50, len(low)))])
        found = inputs @ integers.T
        assert (found.max(axis=0) - found.min(axis=0) <= 2**bits - 1).all()
        value = node.outputs[0]
        (reader,) = value.consumers()
        if reader.op_type == "Add":  # raw outputs are shifted to start at 0
            found = found + constant_of(reader.inputs[1]).reshape(-1).astype(np.int64)
            (reader,) = reader.outputs[0].consumers()
        if reader.op_type == "TableLookup":
            table, first = (constant_of(v).astype(np.int64) for v in reader.inputs[1:3])
            assert table.shape[1] <= 2**bits
            assert (found >= first).all()
            assert (found <= first + table.shape[1] - 1).all()
        else:
            low, high = Decrypt.of(reader).range
            assert found.min() >= low
            assert found.max() <= high
        checked += 1
    assert checked == 3


def test_the_norm_keeps_more_than_the_number_of_weights():
    model, data = mlp(5, (5, 64, 48, 3))
    omega = pruned(model, "prune{accumulator-bits=8}", data)
    norm = pruned(model, "prune{accumulator-bits=8 bound=l1}", data)
    slack = pruned(model, "prune{accumulator-bits=8 multiplier=3}", data)
    kept = [sum(np.count_nonzero(w) for w in weights(r.model)) for r in (omega, norm, slack)]
    assert kept[0] < kept[1]
    assert kept[0] < kept[2]
    assert np.count_nonzero(weights(omega.model)[1], axis=1).max() == 5


def test_levels_are_those_of_the_integers_that_a_layer_reads():
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[N,1,4,4] input) => (float[N,1,1,1] output) <
        float[1,1,1,1] w1 = {1.0}, float[1] b = {0.0}, float[1,1,2,2] w2 = {1.0, 2.0, 3.0, 4.0},
        float[1,1,1,1] w3 = {1.0}
    > {
        first = Conv <kernel_shape = [1, 1]> (input, w1, b)
        active = Relu (first)
        sum = Add (active, input)
        pooled = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (sum)
        second = Conv <kernel_shape = [2, 2]> (pooled, w2, b)
        again = Relu (second)
        output = Conv <kernel_shape = [1, 1]> (again, w3, b)
    }
    """
    model = prepared(text)
    regions = find_regions(model)
    read = [n.inputs[0] for n in model.graph if linear_of(n)]
    assert [input_levels(v, regions, 5, 3) for v in read] == [(31, False), ((31 + 7) * 4, True), (7, False)]
    result = pruned(model, "prune{accumulator-bits=12}")
    assert any("assumes equal scales" in note for note in result.context.notes)


def test_zeros_stay_zero_through_quantization():
    model, data = mlp(6, (6, 24, 16, 3))
    result = pruned(model, "prune{sparsity=0.5}", data).model
    for method in ("nearest", "gptq", "descent"):
        quantized = pruned(
            result, f"quantize{{weights=3 activations=4 inputs=5 method={method}}}", data
        ).model
        for before, after in zip(weights(result), weights(quantized), strict=True):
            assert not np.any(after[before == 0])


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("prune", PipelineError, "prune was not told how much"),
        ('prune{layers={"/nope"=0.5}}', PipelineError, "no layer with weights called '/nope'"),
        ("prune{sparsity=1.5}", PipelineError, "does not take this value"),
        ("prune{sparsity=0.5 method=obs}", DataError, "needs calibration data"),
        ("prune{accumulator-bits=4}", LimitError, "no weight fits an accumulator of 4 bits"),
    ],
)
def test_refusals(text, kind, message):
    with pytest.raises(kind, match=message):
        pruned(prepared(), text)


def test_it_says_how_sparse_the_network_is():
    assert pruned(prepared(), "prune{sparsity=0.5}").context.notes == [
        "prune: 8 of 16 weights are zero (50%), 0 were before"
    ]


def test_text_round_trips():
    text = "prune{sparsity=0.5 method=obs layers={/fc1/Gemm=0.7}}"
    (only,) = PassManager.parse(text).passes
    assert only == Prune(sparsity=0.5, method="obs", layers={"/fc1/Gemm": 0.7})
    assert only.to_text() == text
