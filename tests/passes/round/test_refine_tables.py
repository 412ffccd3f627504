"""refine-tables lets rounding errors of a layer's neurons cancel, and changes nothing but table entries."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_fhe
from onnx_fhe.analysis.ranges.ranges import SoundRanges
from onnx_fhe.ir.errors import DataError
from onnx_fhe.ir.graph import constant_of, is_dialect
from onnx_fhe.ir.ops import Decrypt, TableLookup
from onnx_fhe.ir.range_options import RangeOptions
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.round.refine_tables.smooth import interpolated, isotonic

INTEGER = "normalize,quantize{weights=3 activations=3 inputs=5},lower-to-integer,fuse-tlu"


def redundant(activation="Relu", opset=17):
    """2-24-24-2 with random weights: many neurons on a plane, which can make up for each other."""
    random = np.random.default_rng(0)
    sizes, nodes, values, current = [2, 24, 24, 2], [], [], "input"
    for i in range(3):
        shape = (sizes[i + 1], sizes[i])
        weight = (random.normal(size=shape) * 1.5 / np.sqrt(sizes[i])).astype(np.float32)
        values += [onnx.numpy_helper.from_array(weight, f"w{i}")]
        values += [
            onnx.numpy_helper.from_array(random.normal(0, 0.5, sizes[i + 1]).astype(np.float32), f"b{i}")
        ]
        output = "output" if i == 2 else f"h{i}"
        nodes.append(
            onnx.helper.make_node("Gemm", [current, f"w{i}", f"b{i}"], [output], name=f"fc{i}", transB=1)
        )
        if i < 2:
            nodes.append(onnx.helper.make_node(activation, [output], [f"a{i}"], name=f"act{i}"))
            current = f"a{i}"
    ports = [onnx.helper.make_tensor_value_info(n, 1, ["N", 2]) for n in ("input", "output")]
    graph = onnx.helper.make_graph(nodes, "net", ports[:1], ports[1:], values)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def loaded(tmp_path):
    """Saves and loads a model as users do."""

    def load(proto):
        onnx.save(proto, tmp_path / "model.onnx")
        return onnx_fhe.load(tmp_path / "model.onnx")

    return load


def points(seed, count=1000):
    return {"input": np.random.default_rng(seed).uniform(-2, 2, (count, 2)).astype(np.float32)}


def error(model, float_model, data):
    (found,), (wanted,) = run(model, data).values(), run(float_model, data).values()
    return float(((found - wanted) ** 2).mean() / wanted.var())


def tables(model):
    return [n for n in model.graph if is_dialect(n, "TableLookup")]


def widths(model):
    return [(t.range, t.table_bits, t.accumulator_bits, t.bootstraps) for t in TableLookup.all_in(model)]


def refined(model, data, text=INTEGER, last="refine-tables", **context):
    """The integer model without and with the pass."""
    context = Context(calibration=data, **context)
    plain = PassManager.parse(text).run(model, context).model
    return plain, PassManager.parse(f"{text},{last}").run(model, context)


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid", "Sin"])
def test_errors_cancel_on_unseen_data(loaded, activation):
    model = loaded(redundant(activation))
    plain, result = refined(model, points(1))
    assert result.modified
    seen = error(plain, model, points(2)), error(result.model, model, points(2))
    assert seen[1] < 0.8 * seen[0]


def test_only_entries_change(loaded):
    model = loaded(redundant())
    plain, result = refined(model, points(1))
    verify(result.model)
    assert [(n.name, n.op_type) for n in plain.graph] == [(n.name, n.op_type) for n in result.model.graph]
    for before, after in zip(tables(plain), tables(result.model), strict=True):
        old, new = constant_of(before.inputs[1]), constant_of(after.inputs[1])
        assert not np.array_equal(old, new)
        assert new.min() >= old.min()
        assert new.max() <= old.max()
        assert np.array_equal(new, np.rint(new))
        assert (np.diff(new, axis=1) >= 0).all()  # ReLU's tables never fall
        assert TableLookup.of(before).table_bits == TableLookup.of(after).table_bits


def test_ranges_hold_what_calibration_shows(loaded):
    model = loaded(redundant())
    data = points(1)
    result = refined(model, data, ranges=RangeOptions(margin=0.0))[1].model
    for declares in (*TableLookup.all_in(result), *Decrypt.all_in(result)):
        seen = run(result, data, [declares.input.name])[declares.input.name]
        if isinstance(declares, Decrypt):
            assert seen.min() >= declares.low
            assert seen.max() <= declares.high
        else:
            assert (seen >= declares.first).all()
            assert (seen <= declares.first + declares.span).all()


def test_sound_ranges_stay_sound(loaded):
    model = loaded(redundant("Tanh"))
    result = refined(model, points(1), ranges=RangeOptions("sound"))[1]
    assert result.modified
    sound = SoundRanges(result.model)
    for table in tables(result.model):
        low, high = (b.reshape(-1) for b in sound.of(table.inputs[0]))
        values, first = constant_of(table.inputs[1]), constant_of(table.inputs[2])
        assert (low >= first).all()
        assert (high <= first + values.shape[1] - 1).all()


def test_it_mends_rounding_too(loaded):
    model = loaded(redundant())
    text = INTEGER.replace("activations=3", "activations=4") + ",insert-rounding{bits=4}"
    plain, result = refined(model, points(1), text)
    assert error(result.model, model, points(2)) < 0.9 * error(plain, model, points(2))
    assert widths(plain) == widths(result.model)


def test_every_network_of_the_zoo_gets_no_worse(small, loaded):
    model = loaded(small.proto)
    plain, result = refined(model, small.data)
    verify(result.model)
    wanted = run(model, small.data)
    for name, values in run(result.model, small.data).items():
        if np.issubdtype(values.dtype, np.floating):
            before = ((run(plain, small.data)[name] - wanted[name]) ** 2).mean()
            assert ((values - wanted[name]) ** 2).mean() <= 1.3 * before + 1e-6


def test_without_the_float_model_nothing_changes(loaded):
    integer = PassManager.parse(INTEGER).run(loaded(redundant()), Context(calibration=points(1))).model
    result = PassManager.parse("refine-tables").run(integer, Context(calibration=points(1)))
    assert not result.modified


def test_layers_that_lost_neurons_are_refined_towards_what_was_quantized(loaded):
    """The names are those of the model as imported, the shapes are not."""
    model = loaded(redundant())
    text = INTEGER.replace("normalize,", "normalize,remove-neurons{ratio=0.25},")
    reduced = PassManager.parse("normalize,remove-neurons{ratio=0.25}").run(
        model, Context(calibration=points(1))
    )
    plain, result = refined(model, points(1), text)
    assert any("2 of 2 layers of tables refined" in note for note in result.context.notes)
    before, after = (error(m, reduced.model, points(2)) for m in (plain, result.model))
    assert after < 0.9 * before


def test_another_network_of_the_same_shape_is_not_imitated(loaded):
    model = loaded(redundant())
    random = np.random.default_rng(5)
    other = loaded(redundant())
    for name in ("w0", "w1", "w2"):
        value = other.graph.initializers[name]
        value.const_value = ir.tensor(random.normal(size=list(value.shape)).astype(np.float32))
    integer = PassManager.parse(INTEGER).run(model, Context(calibration=points(1))).model
    context = Context(calibration=points(1), source=other)
    assert not PassManager.parse("refine-tables").run(integer, context).modified


def test_it_needs_calibration_data(loaded):
    integer = PassManager.parse(INTEGER).run(loaded(redundant()), Context(calibration=points(1))).model
    with pytest.raises(DataError, match="needs calibration data"):
        PassManager.parse("refine-tables").run(integer)


def test_a_staircase_is_read_as_its_curve():
    steps = np.floor(np.clip(np.arange(-10, 30) / 4, 0, 5))
    curve = interpolated(steps)
    assert np.array_equal(curve[:10], np.zeros(10))
    inner = np.arange(14, 28)
    assert np.allclose(curve[inner], (inner - 10 - 1.5) / 4)
    assert np.array_equal(interpolated(np.full(5, 3.0)), np.full(5, 3.0))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 5)), min_size=1, max_size=12))
def test_isotonic_is_the_nearest_rising_sequence(pairs):
    values, weights = np.array(pairs).T
    found = isotonic(values, weights)
    assert (np.diff(found) >= -1e-9).all()
    # Optimality: the residual sums to 0 on each level, and no level is better split.
    best = (weights * (found - values) ** 2).sum()
    for shift in (-0.1, 0.1):
        for k in range(len(values)):
            moved = found.copy()
            moved[k:] = np.maximum(moved[k:] + max(shift, 0), moved[k:])
            moved[: k + 1] = np.minimum(moved[: k + 1] + min(shift, 0), moved[: k + 1])
            assert (weights * (moved - values) ** 2).sum() >= best - 1e-9
