"""distill that makes networks smaller while it trains: masks, neurons that leave, accumulators that fit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnx_fhe.ir import runtime
from onnx_fhe.ir.errors import LimitError, PipelineError
from onnx_fhe.ir.graph import constant_of
from onnx_fhe.ir.load import load
from onnx_fhe.ir.range_options import RangeOptions
from onnx_fhe.passes import Context
from onnx_fhe.passes.framework.manager import PassManager

torch = pytest.importorskip("torch")

QUANTIZE = "quantize{weights=3 activations=3 inputs=5}"
QUICK = "rounding=0 steps=40 augment=2"


def network(tmp_path, *, convolution: bool = False, seed: int = 0) -> ir.Model:
    """6-16-16-3; or a convolution of 6 channels, a residual one, and a dense layer, on 4x4."""
    random = np.random.default_rng(seed)
    if convolution:
        shapes = {"w1": (6, 1, 3, 3), "w2": (6, 6, 3, 3), "w3": (3, 96)}
        nodes = [
            helper.make_node("Conv", ["x", "w1", "b1"], ["h"], "c1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h"], ["a"], "r1"),
            helper.make_node("Conv", ["a", "w2", "b2"], ["g"], "c2", pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["g", "a"], ["s"], "sum"),
            helper.make_node("Relu", ["s"], ["t"], "r2"),
            helper.make_node("Flatten", ["t"], ["f"], "flat"),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc3", transB=1),
        ]
        shape = ["N", 1, 4, 4]
    else:
        shapes = {"w1": (16, 6), "w2": (16, 16), "w3": (3, 16)}
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "fc1", transB=1),
            helper.make_node("Relu", ["h"], ["a"], "r1"),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["g"], "fc2", transB=1),
            helper.make_node("Relu", ["g"], ["t"], "r2"),
            helper.make_node("Gemm", ["t", "w3", "b3"], ["y"], "fc3", transB=1),
        ]
        shape = ["N", 6]
    weights = {
        k: random.normal(size=s) * np.sqrt(2 / np.prod(s[1:])) * (3 if k == "w3" else 1)
        for k, s in shapes.items()
    }
    weights |= {f"b{k[1]}": random.normal(size=s[0]) * 0.2 for k, s in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    path = tmp_path / f"net{convolution}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load(path)


def inputs(model: ir.Model, count: int = 200, seed: int = 1) -> np.ndarray:
    shape = list(list(model.graph.inputs[0].shape)[1:])
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape)).astype(np.float32)


def run(model: ir.Model, text: str, **options):
    context = Context(calibration={"x": inputs(model)}, **options)
    return PassManager.parse(text).run(model, context)


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    """The integer weights by layer, (neurons, inputs)."""
    found = {}
    for node in model.graph:
        if node.op_type in {"Gemm", "Conv"}:
            codes = constant_of(node.inputs[1].producer().inputs[0])
            found[node.name] = codes.reshape(len(codes), -1).astype(int)
    return found


def rounded(model: ir.Model, data: np.ndarray) -> np.ndarray:
    return next(iter(runtime.run(model, {"x": data}).values()))


def test_weights_that_prune_set_to_zero_stay_zero(tmp_path):
    model = network(tmp_path)
    pruned = run(model, "normalize,prune{sparsity=0.6}").model
    zero = {n.name: constant_of(n.inputs[1]) == 0 for n in pruned.graph if n.op_type == "Gemm"}
    result = run(
        model, f"normalize,prune{{sparsity=0.6}},{QUANTIZE},distill{{{QUICK} learning-rate=0.3}}"
    ).model
    for name, codes in weights(result).items():
        assert zero[name].mean() > 0.5
        assert not codes[zero[name]].any()
    free = run(model, f"normalize,{QUANTIZE},distill{{{QUICK} learning-rate=0.3}}").model
    assert any(codes[zero[name]].any() for name, codes in weights(free).items())


def test_keep_zeros_keeps_those_that_quantization_made(tmp_path):
    # Another teacher, so that weights really change.
    start = run(network(tmp_path), f"normalize,{QUANTIZE}", source=network(tmp_path, seed=5))
    before = weights(start.model)
    text = "distill{rounding=0 steps=150 augment=2 learning-rate=0.1 keep-zeros=true}"
    after = weights(PassManager.parse(text).run(start.model, start.context).model)
    for name, codes in after.items():
        assert not codes[before[name] == 0].any()
    assert any((codes != before[name]).any() for name, codes in after.items())


@pytest.mark.parametrize(("scope", "where"), [("layer", "each"), ("global", "all"), ("neuron", "rows")])
def test_sparsity_is_reached(tmp_path, scope, where):
    text = f"normalize,{QUANTIZE},distill{{{QUICK} sparsity=0.75 scope={scope}}}"
    found = weights(run(network(tmp_path), text).model)
    zeros = {k: w == 0 for k, w in found.items()}
    if where == "all":
        assert np.concatenate([z.ravel() for z in zeros.values()]).mean() >= 0.75
    elif where == "each":
        assert all(z.mean() >= 0.745 for z in zeros.values())
    else:
        assert all((z.mean(axis=1) >= 0.66).all() for z in zeros.values())


def test_nonzero_weights_of_each_neuron_also_by_layer(tmp_path):
    text = f"normalize,{QUANTIZE},distill{{{QUICK} nonzeros=5 layers={{fc2={{nonzeros=3}}}}}}"
    result = run(network(tmp_path), text)
    found = {k: np.count_nonzero(w, axis=1) for k, w in weights(result.model).items()}
    assert (found["fc1"] <= 5).all()
    assert (found["fc2"] <= 3).all()
    assert (found["fc3"] <= 5).all()
    assert any("masked" in n for n in result.context.notes)


def test_masks_hold_when_time_runs_out_at_once(tmp_path):
    found = weights(
        run(network(tmp_path), f"normalize,{QUANTIZE},distill{{{QUICK} nonzeros=4 seconds=0}}").model
    )
    assert all((np.count_nonzero(w, axis=1) <= 4).all() for w in found.values())


def test_the_mask_grows_along_a_cubic_and_never_shrinks():
    from onnx_fhe.passes.distill.training.quantizers import FakeWeight
    from onnx_fhe.passes.distill.training.sparsity import BEGIN_SHARE, END_SHARE, Sparsity, Wanted

    random = np.random.default_rng(0)
    weight = FakeWeight(random.normal(size=(10, 20)), np.ones((10, 1)), True)
    plan = Sparsity({"fc": Wanted(weight, 0, 0.8, None)}, "layer")
    masks = []
    for done in np.linspace(0, 1, 21):
        plan.before(0, float(done))
        masks.append(weight.mask.numpy().copy())
        with torch.no_grad():
            weight.latent += torch.from_numpy(random.normal(0, 0.3, (10, 20)).astype(np.float32))
    assert all((b <= a).all() for a, b in pairwise(masks))
    zeros = np.array([1 - m.mean() for m in masks])
    wanted = 0.8 * (
        1 - (1 - np.clip((np.linspace(0, 1, 21) - BEGIN_SHARE) / (END_SHARE - BEGIN_SHARE), 0, 1)) ** 3
    )
    assert np.abs(zeros - wanted).max() < 0.01
    assert plan.complete(1.0)


@pytest.mark.parametrize("convolution", [False, True])
def test_neurons_really_leave(tmp_path, convolution):
    model = network(tmp_path, convolution=convolution)
    result = run(model, f"normalize,{QUANTIZE},distill{{{QUICK} remove=0.5 balance=uniform}}")
    found = weights(result.model)
    if convolution:  # the residual addition couples both layers
        assert [found[k].shape for k in ("c1", "c2", "fc3")] == [(3, 9), (3, 27), (3, 48)]
    else:
        assert [found[k].shape for k in ("fc1", "fc2", "fc3")] == [(8, 6), (8, 8), (3, 8)]
    assert any("removed" in n for n in result.context.notes)
    onnx.checker.check_model(runtime.to_proto(result.model))
    data = inputs(model, 60, seed=4)
    integer = PassManager.parse("lower-to-integer,fuse-tlu").run(result.model.clone(), result.context).model
    small, lowered = rounded(result.model, data), rounded(integer, data)
    assert small.shape == (60, 3)
    assert np.isclose(small, lowered, atol=1e-3).mean() > 0.9


def test_removal_by_layer_with_rounding(tmp_path):
    text = f"normalize,{QUANTIZE},distill{{rounding=3 steps=40 augment=2 layers={{fc2={{remove=0.75}}}}}}"
    found = weights(run(network(tmp_path), text).model)
    assert [found[k].shape for k in ("fc1", "fc2", "fc3")] == [(16, 6), (4, 16), (3, 4)]


def test_removal_until_a_latency(tmp_path):
    model = network(tmp_path)
    slow = run(model, f"normalize,{QUANTIZE},distill{{{QUICK} latency=1000}}").model
    fast = run(model, f"normalize,{QUANTIZE},distill{{{QUICK} latency=0.1}}").model
    assert sum(len(w) for w in weights(slow).values()) == 35
    assert sum(len(w) for w in weights(fast).values()) < 35


def test_pruned_zeros_go_along_when_neurons_leave(tmp_path):
    removing = f"{QUICK} learning-rate=0.3 remove=0.5 balance=uniform"
    text = f"normalize,prune{{sparsity=0.6}},{QUANTIZE},distill{{{removing}}}"
    found = weights(run(network(tmp_path), text).model)
    assert found["fc2"].shape == (8, 8)
    assert (found["fc2"] == 0).mean() > 0.3


def test_the_neuron_that_does_nothing_goes_first(tmp_path):
    model = run(network(tmp_path), "normalize").model
    for node, row in ((n, 5) for n in model.graph if n.name == "fc3"):
        value = node.inputs[1]
        array = constant_of(value).copy()
        array[:, row] = 0.0
        value.const_value = ir.tensor(array, name=value.name)
    start = run(model, QUANTIZE)
    kept = weights(start.model)["fc1"]
    result = PassManager.parse(f"distill{{{QUICK} layers={{fc2={{remove=0.06}}}}}}").run(
        start.model, start.context
    )
    assert len(weights(result.model)["fc2"]) == 15
    assert len(weights(result.model)["fc1"]) == len(kept)
    data = inputs(model, 200, seed=3)
    assert rounded(result.model, data).shape == (200, 3)


@pytest.mark.parametrize("convolution", [False, True])
def test_accumulators_fit_whatever_the_input(tmp_path, convolution):
    model = network(tmp_path, convolution=convolution)
    bits = {"fc1": 7, "fc2": 6, "fc3": 6, "c1": 7, "c2": 7}
    names = ("c1", "c2") if convolution else ("fc1", "fc2", "fc3")
    bits = {k: bits[k] for k in names}
    layers = " ".join(f"{k}={{accumulator-bits={b}}}" for k, b in bits.items())
    text = f"normalize,{QUANTIZE},distill{{{QUICK} layers={{{layers}}}}}"
    result = run(model, text, ranges=RangeOptions("sound"))
    # Inputs have 5 bits, and so span 31; activations 3, and span 7.
    span = {"fc1": 31, "c1": 31}
    for name, wide in bits.items():
        sums = np.abs(weights(result.model)[name]).sum(axis=1) * span.get(name, 7)
        assert (sums <= 2**wide - 1).all(), name
        assert sums.any()


@given(st.integers(0, 2**16), st.integers(1, 40), st.sampled_from([1, 3, 7]), st.sampled_from([0, 1]))
@settings(max_examples=40, deadline=None)
def test_a_budget_is_kept_and_takes_no_more_than_it_must(seed, most, top, axis):
    from onnx_fhe.passes.distill.training.quantizers import Budget, FakeWeight

    # Spread evenly, not clipped: of weights of one size all give way, however many they are.
    latent = np.random.default_rng(seed).uniform(-top - 0.4, top + 0.4, (6, 9))
    weight = FakeWeight(np.rint(latent).clip(-top, top), np.ones((1, 1)), True, axis)
    weight.top = top
    with torch.no_grad():
        weight.latent.copy_(torch.from_numpy(latent.astype(np.float32)))
    free = weight.codes().detach().numpy()
    weight.budget = Budget(most, axis)
    kept = weight.codes().detach().numpy()
    sums = np.abs(kept).sum(axis=1 - axis)
    assert (sums <= most).all()
    assert (np.abs(kept) <= np.abs(free)).all()
    assert (kept * free >= 0).all()
    fits = np.abs(free).sum(axis=1 - axis) <= most
    assert np.array_equal(np.compress(fits, kept, axis), np.compress(fits, free, axis))
    # What had to give way gave way by little: at most what ties and the search's last step leave.
    assert (sums[~fits] >= most - 2).all()


def test_an_impossible_width_names_the_layer(tmp_path):
    with pytest.raises(LimitError) as caught:
        run(network(tmp_path), f"normalize,{QUANTIZE},distill{{{QUICK} accumulator-bits=2}}")
    assert caught.value.where.node == "fc1"
    assert "bits" in caught.value.do


@pytest.mark.parametrize(
    ("layers", "what"),
    [
        ("{nosuch={sparsity=0.5}}", "no layer"),
        ("{fc1={sparsity=2}}", "sparsity=2"),
        ("{fc1={weights=3}}", "weights=3"),
        ("{fc3={remove=0.5}}", "can be removed"),
        ("{fc3={rounding=4}}", "a table behind it called 'fc3'"),
        ("{fc1={rounding=9}}", "rounding=9"),
    ],
)
def test_layers_are_checked(tmp_path, layers, what):
    with pytest.raises(PipelineError, match=what):
        run(network(tmp_path), f"normalize,{QUANTIZE},distill{{{QUICK} layers={layers}}}")


@pytest.mark.parametrize("convolution", [False, True])
def test_layers_are_rounded_each_to_its_bits(tmp_path, convolution):
    from onnx_fhe.ir.ops import TableLookup

    bits = {"c1": 5, "sum": 0} if convolution else {"fc1": 3, "fc2": 5}
    own = " ".join(f"{k}={{rounding={b}}}" for k, b in bits.items())
    again = " ".join(f"{k}={b}" for k, b in bits.items())
    model = network(tmp_path, convolution=convolution)
    text = f"normalize,{QUANTIZE},distill{{rounding=4 steps=40 augment=2 layers={{{own}}}}}"
    result = run(model, f"{text},lower-to-integer,fuse-tlu,insert-rounding{{bits=4 layers={{{again}}}}}")
    assert any("tables of 5 bits" in n or "tables of 3 and 5 bits" in n for n in result.context.notes)
    # insert-rounding calls the layers by the same names, and finds the widths that training had.
    tables = TableLookup.all_in(result.model)
    assert {t.title[0] for t in tables} == set(bits)
    for table in tables:
        wanted = bits[table.title[0]]
        assert (table.rounding is not None) == bool(wanted)


def test_layers_of_the_same_name_are_matched(tmp_path):
    from onnx_fhe.passes.distill.training.matching import MAX_MATCHED_BYTES, matched_layers

    model = network(tmp_path, seed=5)
    start = run(network(tmp_path), f"normalize,{QUANTIZE}", source=model)
    assert matched_layers(start.model, model, 100) == ["fc1", "fc2"]
    assert matched_layers(start.model, model, MAX_MATCHED_BYTES) == []
    small = run(model, f"normalize,remove-neurons{{layers={{fc1=0.5}}}},{QUANTIZE}").model
    assert matched_layers(small, model, 100) == ["fc2"]

    def distance(text: str) -> float:
        result = PassManager.parse(text).run(start.model.clone(), start.context).model
        data = inputs(model, 200, seed=9)
        parts = []
        for m in (result, model):
            value = next(n for n in m.graph if n.name == "fc2").outputs[0]
            parts.append(runtime.Session(m, [str(value.name)]).run({"x": data})[str(value.name)])
        return float(((parts[0] - parts[1]) ** 2).mean())

    plain = distance("distill{rounding=0 steps=200 learning-rate=0.1}")
    matched = distance("distill{rounding=0 steps=200 learning-rate=0.1 match=20}")
    assert matched < plain


def test_options_print_and_parse():
    text = "distill{match=0.5 sparsity=0.5 nonzeros=30 scope=global remove=0.25 accumulator-bits=8}"
    assert PassManager.parse(text).to_text() == text
