"""What is done otherwise in large networks: the same where nothing is left out, and nearly so where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_fhe.analysis import environment
from onnx_fhe.analysis.cost import cost, timing
from onnx_fhe.ir import convert, runtime
from onnx_fhe.ir.graph import extremes_of
from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.passes import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.quantize import activations, solvers, weights
from onnx_fhe.passes.round.insert_rounding import auto, rounding_inserter, unrounded_reference
from onnx_fhe.testing import pipelines

TO_TABLES = "normalize,quantize{weights=5 activations=6 inputs=6},lower-to-integer,fuse-tlu"


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


DATA = {"input": uniform(120, 6)}
FRESH = {"input": uniform(1000, 6, seed=1)}


def error(model: ir.Model, reference: ir.Model) -> float:
    a, b = pipelines.outputs(model, FRESH), pipelines.outputs(reference, FRESH)
    return float(((a - b) ** 2).mean() / b.var())


@pytest.fixture(scope="module")
def network() -> ir.Model:
    return pipelines.imported(pipelines.dense(6, 8, 7, 3))


@pytest.fixture(scope="module")
def integer(network: ir.Model) -> ir.Model:
    return pipelines.apply(network, TO_TABLES, DATA)


@given(first=st.integers(0, 12), count=st.integers(1, 12))
def test_halving_finds_what_asking_all_finds(first, count):
    asked: list[int] = []

    def fits(place: int) -> bool:
        asked.append(place)
        return place >= first

    places = range(count)
    assert auto._first(places, fits, halving=True) == auto._first(places, lambda p: p >= first, halving=False)
    assert len(asked) <= 4


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_positions_are_the_same_for_all_tensors_of_a_shape(axis, monkeypatch):
    monkeypatch.setattr(unrounded_reference, "MAX_SEEN_ELEMENTS", 100)
    monkeypatch.setattr(unrounded_reference, "SAMPLED_ELEMENTS", 60)
    whole = np.arange(3 * 4 * 5 * 6, dtype=np.float32).reshape(3, 4, 5, 6)
    found, doubled = unrounded_reference.columns(whole, axis), unrounded_reference.columns(2 * whole, axis)
    assert found.shape == (60 // whole.shape[axis], whole.shape[axis])
    assert np.array_equal(2 * found, doubled)
    everything = np.moveaxis(whole, axis, -1).reshape(-1, whole.shape[axis])
    assert all((everything == row).all(axis=1).any() for row in found)
    monkeypatch.setattr(unrounded_reference, "MAX_SEEN_ELEMENTS", whole.size)
    assert np.array_equal(unrounded_reference.columns(whole, axis), everything)


def test_the_plain_model_is_what_the_model_computes(integer):
    found = unrounded_reference.UnroundedReference.of(integer, DATA)
    (whole,) = runtime.run(integer, DATA).values()
    np.testing.assert_array_equal(found.outputs[0], whole)
    assert [a.shape for a in found.entries.values()] == [(120, 8), (120, 7)]


def test_a_large_search_takes_few_samples_and_says_so(integer, monkeypatch):
    usual = PassManager.parse("insert-rounding{bits=auto}").run(integer, Context(calibration=DATA))
    assert not any("a network this large" in n for n in usual.context.notes)
    monkeypatch.setattr(auto, "MAX_TRIED_PRODUCTS", 20 * cost.work(integer))
    seen: list[int] = []
    whole = unrounded_reference.UnroundedReference.of.__func__

    def of(cls, model, data):
        seen.append(len(data["input"]))
        return whole(cls, model, data)

    monkeypatch.setattr(unrounded_reference.UnroundedReference, "of", classmethod(of))
    found = PassManager.parse("insert-rounding{bits=auto}").run(integer, Context(calibration=DATA))
    assert seen == [20, 120]
    assert any("chosen on 20 calibration samples" in n for n in found.context.notes)
    assert error(found.model, integer) < max(0.05, 2 * error(usual.model, integer))


def test_fewer_places_of_the_lattice_lose_little(integer, monkeypatch):
    usual = pipelines.apply(integer, "insert-rounding{bits=4}", DATA)
    monkeypatch.setattr(rounding_inserter, "MAX_CHANNELS", 0)
    rough = pipelines.apply(integer, "insert-rounding{bits=4}", DATA)
    assert pipelines.ops(rough) == pipelines.ops(usual)
    assert error(rough, integer) < 2 * error(usual, integer) + 0.005


def test_the_unrounded_tables_leave_with_the_rounding(integer):
    rounded = pipelines.apply(integer, "insert-rounding{bits=3}", DATA)
    read = {v.name for n in rounded.graph for v in n.inputs if v is not None}
    assert set(rounded.graph.initializers) <= read


def test_wide_layers_are_quantized_as_well(network, monkeypatch):
    pipeline = "normalize,quantize{weights=4 activations=6 inputs=6 max-weight-norm=15}"
    usual = pipelines.apply(network, pipeline, DATA)
    monkeypatch.setattr(weights, "WIDE_INPUTS", 4)
    monkeypatch.setattr(solvers, "MAX_WHOLE_INPUTS", 4)
    monkeypatch.setattr(solvers, "BLOCK_INPUTS", 3)
    monkeypatch.setattr(activations, "MAX_SHUFFLED_ROWS", 10)
    wide = pipelines.apply(network, pipeline, DATA)
    assert error(wide, network) < 1.5 * error(usual, network) + 0.005


def test_samples_of_wide_tensors_are_run_a_few_at_a_time(integer, monkeypatch):
    whole = unrounded_reference.UnroundedReference.of(integer, DATA)
    monkeypatch.setattr(environment, "MAX_RUN_ELEMENTS", 40)
    parts = unrounded_reference.UnroundedReference.of(integer, DATA)
    assert all(np.array_equal(a, parts.entries[name]) for name, a in whole.entries.items())


def saved(path: Path, op: str, opset: int, **attributes: int) -> Path:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], "only", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "M"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("op", "opset", "compared"),
    [
        ("Relu", 17, False),
        ("Relu", 13, True),
        ("Flatten", 11, False),
        ("Softmax", 11, True),
        ("HardSwish", 14, True),
    ],
)
def test_only_what_may_have_changed_is_compared(op, opset, compared, tmp_path, monkeypatch):
    """Loading a large graph twice to compare its outputs is most of what loading takes."""
    asked = []
    monkeypatch.setattr(convert, "check_conversion", lambda *given: asked.append(given))
    model = load(saved(tmp_path / "model.onnx", op, opset))
    assert model.opset_imports[""] == target_opset()
    assert bool(asked) is compared


def test_what_is_known_of_a_constant_is_computed_once():
    value = ir.Value(name="w", const_value=ir.Tensor(np.array([3.0, -2.0, 1.0], np.float32)))
    assert extremes_of(value) == (-2.0, 3.0)
    assert extremes_of(value) is extremes_of(value)
    value.const_value = ir.Tensor(np.array([5.0], np.float32))
    assert extremes_of(value) == (5.0, 5.0)
    assert extremes_of(ir.Value(name="x")) is None


def test_a_pipeline_may_run_in_place(network):
    given_away = network.clone()
    result = PassManager.parse("normalize").run(given_away, Context(), in_place=True)
    assert result.model is given_away
    assert PassManager.parse("normalize").run(given_away).model is not given_away


def test_equal_steps_are_timed_once(monkeypatch):
    known = timing.default_timings()
    steps = tuple(timing.Step(m.bootstrap, m.keyswitch, 3) for m in known.measured[:2]) * 50
    asked = []
    whole = timing.Timings.milliseconds
    monkeypatch.setattr(timing.Timings, "milliseconds", lambda *a: asked.append(a) or whole(*a))
    total = known.seconds(steps)
    assert len(asked) == 2
    assert total == pytest.approx(known.call_seconds + 50 * (known.seconds(steps[:2]) - known.call_seconds))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("remove-layers{tolerance=0.5}", "nothing was tried in a network this large"),
        ("remove-neurons{ratio=0.5 tolerance=0.5}", "none were weighed"),
    ],
)
def test_what_would_take_hours_is_left_out_and_said(text, said, network, monkeypatch):
    monkeypatch.setattr(cost, "MAX_TRIAL_WEIGHTS", 100)
    result = PassManager.parse(f"normalize,{text}").run(network, Context(calibration=DATA))
    assert any(said in note and "125 weights" in note for note in result.context.notes)
    assert error(result.model, network) < 1e-9
    cheaper = PassManager.parse("normalize,remove-neurons{criterion=l2 ratio=0.5 refit=false}")
    assert len(pipelines.constant(first_of(cheaper.run(network, Context(calibration=DATA)).model), 1)) < 8


def first_of(model: ir.Model) -> ir.Node:
    return next(n for n in model.graph if n.op_type == "Gemm")
