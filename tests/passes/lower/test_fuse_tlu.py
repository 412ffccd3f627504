"""Tables: computed by running the operators that they replace, over the range that the accumulator has."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.ir.errors import DataError, LimitError, PipelineError, UnsupportedError
from onnx_fhe.ir.ops import TableLookup
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.lower.fuse_tlu import FuseTlu
from onnx_fhe.passes.round.insert_rounding.insert_rounding import InsertRounding
from onnx_fhe.testing import pipelines

HEAD = "q0 = QuantizeLinear(x, s, z) d0 = DequantizeLinear(q0, s, z) w = DequantizeLinear<axis = 0>(wq, ws)"
TAIL = """q1 = QuantizeLinear(f, s1, z1) c1 = Clip(q1, low, high) d1 = DequantizeLinear(c1, s1, z1)
    w1 = DequantizeLinear<axis = 0>(wq1, ws1) y = Gemm<transB = 1>(d1, w1, b1)"""
SCALES = {"s": np.float32(0.125), "z": np.uint8(8), "s1": np.float32(0.25), "z1": np.uint8(5)}
BOUNDS = {"low": np.uint8(0), "high": np.uint8(15)}


def integers(*shape: int, seed: int = 0, limit: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-limit, limit + 1, shape).astype(np.int8)


def inputs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def dense(functions: str, **weights: object) -> ir.Model:
    """Two dense layers with ``functions`` from a to f between, lowered to integers."""
    given = {
        "wq": integers(4, 6),
        "ws": np.float32([0.5, 0.25, 1, 0.5]),
        "b": np.float32([0.5, -0.25, 0.1, 0]),
    }
    given |= {"wq1": integers(2, 4, seed=1), "ws1": np.float32([1, 1]), "b1": np.float32([0, 0])}
    model = pipelines.model(
        f"(float[N,6] x) => (float[N,2] y) {{ {HEAD} a = Gemm<transB = 1>(d0, w, b) {functions} {TAIL} }}",
        **(given | SCALES | BOUNDS | weights),
    )
    return pipelines.apply(model, "lower-to-integer")


def image(functions: str, shape: tuple[int, int, int] = (3, 2, 3), **weights: object) -> ir.Model:
    """The same with a convolution in front."""
    channels, height, width = shape
    size = int(np.prod(shape))
    given = {"wq": integers(channels, 1, 2, 2), "ws": np.ones(channels, np.float32), "b": inputs(channels)}
    given |= {"wq1": integers(2, size, seed=1), "ws1": np.float32([1, 1]), "b1": np.float32([0, 0])}
    conv = "Conv<pads = [0,0,0,0], strides = [1,1], dilations = [1,1], group = 1, kernel_shape = [2,2]>"
    tail = TAIL.replace("(d1, w1", "(d2, w1").replace("w1 = Deq", "d2 = Flatten(d1) w1 = Deq")
    model = pipelines.model(
        f"(float[N,1,{height + 1},{width + 1}] x) => (float[N,2] y)"
        f" {{ {HEAD} a = {conv}(d0, w, b) {functions} {tail} }}",
        **(given | SCALES | BOUNDS | weights),
    )
    return pipelines.apply(model, "lower-to-integer")


def fused(model: ir.Model, data: dict[str, np.ndarray] | None = None, **context: object) -> ir.Model:
    """Fuse a copy in sound mode (or observed, with data); nothing may change, a second run must say so."""
    mode = "observed" if data else "sound"
    ready = pipelines.context(data, **{"range_mode": mode, **context})
    after = model.clone()
    assert FuseTlu(context=ready)(after).modified
    verify(after)
    assert "QuantizeLinear" not in [n.op_type for n in after.graph if n.op_type in between(after)]
    before = ir.to_proto(after).SerializeToString(deterministic=True)
    assert not FuseTlu(context=ready)(after).modified
    assert ir.to_proto(after).SerializeToString(deterministic=True) == before
    return after


def between(model: ir.Model) -> list[str]:
    """Operators from Encrypt to Decrypt."""
    names = pipelines.ops(model)
    return names[names.index("Encrypt") + 1 : len(names) - names[::-1].index("Decrypt") - 1]


def assert_same(before: ir.Model, after: ir.Model, data: dict[str, np.ndarray]) -> None:
    wanted, found = run(before, data), run(after, data)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=1e-4)


def test_text_before_and_after():
    model = dense("f = Relu(a)")
    assert between(model) == ["Gemm", "Mul", "Add", "Relu", "QuantizeLinear", "Clip", "Cast", "Add", "Gemm"]
    after = fused(model)
    assert between(after)[:3] == ["Gemm", "TableLookup", "Gemm"]
    lookup = pipelines.node(after, "TableLookup")
    table, first = pipelines.constant(lookup, 1), pipelines.constant(lookup, 2)
    assert table.shape[0] == first.shape[0] == 4
    # 0.125 and the weight's scale make a step; relu; then 4 bits of 0.25 with 5 for zero, which is taken off.
    gains = 0.125 * np.float32([0.5, 0.25, 1, 0.5])
    real = (first[:, None] + np.arange(table.shape[1])) * gains[:, None]
    real = np.maximum(real + np.float32([0.5, -0.25, 0.1, 0])[:, None], 0)
    np.testing.assert_array_equal(table, np.clip(np.rint(real / 0.25) + 5, 0, 15) - 5)
    # Sound: the table takes whatever 8-bit inputs can make of the weights.
    reach = np.abs(integers(4, 6).astype(int)).sum(axis=1)
    assert table.shape[1] == 255 * reach.max() + 1
    assert_same(model, after, {"x": inputs(200, 6)})


CHAINS = {
    "relu": "{f} = Relu({a})",
    "swish": "s{i} = Sigmoid({a}) {f} = Mul({a}, s{i})",
    "hard-swish": "{f} = HardSwish({a})",
    "chain": "t{i} = Tanh({a}) e{i} = Elu<alpha = 0.5>(t{i}) {f} = LeakyRelu<alpha = 0.1>(e{i})",
    "clip": "{f} = Clip({a}, lo, hi)",
    "erf": "e{i} = Erf({a}) o{i} = Add(e{i}, one) {f} = Mul(o{i}, {a})",
    "where": "g{i} = Greater({a}, lo) {f} = Where(g{i}, {a}, lo)",
    "cast": "i{i} = Cast<to = 6>({a}) j{i} = Cast<to = 1>(i{i}) {f} = Sub({a}, j{i})",
    "diamonds": "s{i} = Sigmoid({a}) m{i} = Mul({a}, s{i}) n{i} = Neg(m{i}) p{i} = Max(m{i}, n{i})"
    " {f} = Add(p{i}, s{i})",
    "per neuron": "m{i} = Mul({a}, per) {f} = PRelu(m{i}, slope)",
    "steps": "r{i} = Round({a}) v{i} = Div(r{i}, hi) {f} = Floor(v{i})",
    "comparison": "g{i} = GreaterOrEqual({a}, per) {f} = Cast<to = 1>(g{i})",
}
"""Element-wise functions from {a} to {f}; names inside end with {i}."""
CONSTANTS = {
    "lo": np.float32(-0.5),
    "hi": np.float32(1.5),
    "one": np.float32(1),
    "per": np.float32([0.5, -1, 2, 0.1]),
    "slope": np.float32([0.1, 0.2, -0.3, 1]),
}


@pytest.mark.parametrize("name", CHAINS)
def test_anything_element_wise_becomes_one_table(name):
    model = dense(CHAINS[name].format(a="a", f="f", i="_"), **CONSTANTS)
    after = fused(model)
    assert between(after)[:3] == ["Gemm", "TableLookup", "Gemm"]
    assert_same(model, after, {"x": inputs(200, 6)})


def test_one_table_for_all_channels_where_nothing_differs():
    model = dense("f = Relu(a)", ws=np.float32([0.5] * 4), b=np.float32([0.5] * 4))
    assert pipelines.constant(pipelines.node(fused(model), "TableLookup"), 1).shape[0] == 1


def test_observed_ranges_have_a_margin_and_stay_within_the_sound_ones():
    model, data = dense("f = Tanh(a)"), {"x": inputs(100, 6)}
    seen = run(model, data, [pipelines.node(model, "Gemm").outputs[0].name])
    accumulators = next(iter(seen.values()))
    sizes = []
    for margin in (0.0, 0.2, 100.0):
        after = fused(model, data, range_margin=margin)
        lookup = pipelines.node(after, "TableLookup")
        table, first = pipelines.constant(lookup, 1), pipelines.constant(lookup, 2)
        assert (first <= accumulators.min(axis=0)).all()
        assert (first + table.shape[1] - 1 >= accumulators.max(axis=0)).all()
        sizes.append(table.shape[1])
        assert_same(model, after, data)
    assert sizes[0] == int(np.ptp(accumulators, axis=0).max()) + 1
    assert sizes[0] * 1.3 < sizes[1] < sizes[0] * 1.5
    assert sizes[2] == pipelines.constant(pipelines.node(fused(model), "TableLookup"), 1).shape[1]


def test_observed_ranges_need_calibration_data_and_sound_ones_do_not():
    with pytest.raises(DataError, match="needs calibration data") as refused:
        FuseTlu()(dense("f = Relu(a)"))
    assert refused.value.where.pass_name == "fuse-tlu"
    fused(dense("f = Relu(a)"))


def test_a_table_of_a_table_reads_the_accumulator():
    """An activation that a layer reads, and a function of that activation: two tables on one accumulator."""
    body = f"""{HEAD} a = Gemm<transB = 1>(d0, w, b) r = Relu(a) q1 = QuantizeLinear(r, s1, z1)
        c1 = Clip(q1, low, high) d1 = DequantizeLinear(c1, s1, z1) w1 = DequantizeLinear<axis = 0>(wq1, ws1)
        u = Gemm<transB = 1>(d1, w1, b1) t = Tanh(d1) q2 = QuantizeLinear(t, s, z)
        d2 = DequantizeLinear(q2, s, z)
        v = Gemm<transB = 1>(d2, w1, b1) y = Add(u, v)"""
    weights = {"wq": integers(4, 6), "ws": np.float32([0.5] * 4), "b": np.float32([0.1, 0.2, 0.3, 0.4])}
    weights |= {"wq1": integers(2, 4, seed=1), "ws1": np.float32([1, 1]), "b1": np.float32([0, 0])}
    model = pipelines.model(f"(float[N,6] x) => (float[N,2] y) {{ {body} }}", **(weights | SCALES | BOUNDS))
    model = pipelines.apply(model, "lower-to-integer")
    after = fused(model)
    lookups = [n for n in after.graph if n.op_type == "TableLookup"]
    assert [n.inputs[0].producer().op_type for n in lookups] == ["Gemm", "Gemm"]
    assert_same(model, after, {"x": inputs(200, 6)})


def test_functions_that_are_not_defined_everywhere():
    """Where log has no value the table continues with the nearest; infinities end at the bounds."""
    model = dense("l = Log(a) f = Mul(l, k)", k=np.float32([1, 1, 1, -1]))
    after = fused(model)
    lookup = pipelines.node(after, "TableLookup")
    table, first = pipelines.constant(lookup, 1), pipelines.constant(lookup, 2)
    assert np.isfinite(table).all()
    gains = 0.125 * np.float32([0.5, 0.25, 1, 0.5])
    real = (first[:, None] + np.arange(table.shape[1])) * gains[:, None]
    real = real + np.float32([[0.5], [-0.25], [0.1], [0]])
    for channel in range(4):
        undefined = real[channel] < 0
        values = np.unique(table[channel][undefined])
        assert len(values) == 1
        assert values[0] == table[channel][np.flatnonzero(~undefined)[0]]
    assert table[3][real[3] == 0] == 15 - 5  # -log(0)


def test_a_function_that_is_defined_nowhere_is_refused():
    with pytest.raises(UnsupportedError, match="not a number anywhere"):
        fused(dense("m = Abs(a) n = Sub(lo, m) f = Log(n)", lo=np.float32(-1)))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 1, 1), [1]), ((2, 1), [2]), ((3,), [3]), ((3, 2, 3), [1, 2, 3]), ((1, 2, 3), [2, 3])],
)
def test_constants_along_any_axes(shape, axes):
    constant = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    model = image("f = Add(a, k)", k=constant, b=np.zeros(3, np.float32))
    after = fused(model)
    lookup = pipelines.node(after, "TableLookup")
    channels = pipelines.constant(lookup, 1).shape[0]
    if len(axes) == 1:
        assert lookup.attributes["axis"].as_int() == axes[0]
        assert channels == (3, 2, 3)[axes[0] - 1]
    else:  # several axes: every element has its table
        assert channels == 18
        assert "Reshape" in between(after)
    assert len(pipelines.constant(lookup, 2)) == channels
    assert_same(model, after, {"x": inputs(100, 1, 3, 4)})


def test_a_constant_with_an_axis_along_which_it_does_not_change():
    model = image("f = Mul(a, k)", k=np.full((3, 1, 1), 0.7, np.float32), b=np.zeros(3, np.float32))
    after = fused(model)
    assert pipelines.constant(pipelines.node(after, "TableLookup"), 1).shape[0] == 1
    assert_same(model, after, {"x": inputs(100, 1, 3, 4)})


def test_scales_of_a_quantizer_lie_along_its_axis():
    """Three channels and a width of three: one scale each, which is not what would broadcast."""
    functions = (
        "r = Relu(a) q = QuantizeLinear<axis = 1>(r, sc, zc) f = DequantizeLinear<axis = 1>(q, sc, zc)"
    )
    model = image(
        functions, sc=np.float32([0.1, 0.3, 1.1]), zc=np.uint8([0, 3, 10]), b=np.zeros(3, np.float32)
    )
    after = fused(model)
    for lookup in [n for n in after.graph if n.op_type == "TableLookup"]:
        assert lookup.attributes["axis"].as_int() == 1
    assert_same(model, after, {"x": inputs(100, 1, 3, 4)})


@pytest.mark.parametrize(
    ("functions", "node", "found"),
    [
        (
            "t = Tanh(a) o = Gemm<transB = 1>(d0, w, b) f = Mul(t, o)",
            "QuantizeLinear",
            "depends on 2 encrypted",
        ),
        ("f = Softmax<axis = 1>(a)", "'n4' (Softmax)", "Softmax mixes elements"),
        ("f = LpNormalization<axis = 1>(a)", "(LpNormalization)", "LpNormalization mixes elements"),
    ],
)
def test_what_is_no_table_is_refused(functions, node, found):
    with pytest.raises(UnsupportedError) as refused:
        fused(dense(functions))
    message = str(refused.value)
    assert "cannot become a table" in message
    assert node in message
    assert found in message
    assert "element by element" in message


def test_a_table_over_a_very_wide_accumulator_is_coarse():
    fused(dense("f = Relu(a)", wq=np.full((4, 6), 127, np.int8)))  # 18 bits are many, but it can be made
    body = (
        f"(float[N,200] x) => (float[N,2] y) {{ {HEAD} a = Gemm<transB = 1>(d0, w, b) f = Relu(a) {TAIL} }}"
    )
    weights = {
        "wq": np.full((4, 200), 127, np.int8),
        "ws": np.ones(4, np.float32),
        "b": np.ones(4, np.float32),
    }
    weights |= {"wq1": integers(2, 4), "ws1": np.float32([1, 1]), "b1": np.float32([0, 0])}
    model = pipelines.apply(pipelines.model(body, **(weights | SCALES | BOUNDS)), "lower-to-integer")
    coarse = fused(model)
    (lookup,) = TableLookup.all_in(coarse)
    assert (lookup.rounding, lookup.step) == (None, 2**7)
    assert 2**15 < lookup.size <= 2**16 + 1
    assert lookup.accumulator_bits == lookup.table_bits > 20
    data = {"x": inputs(100, 200)}
    verify(coarse)
    # What an entry was computed for is the middle of what it holds for: nothing is off by a step.
    exact, near = run(model, data)["y"], run(coarse, data)["y"]
    assert np.abs(exact - near).max() <= 1e-5 * np.abs(exact).max()
    rounded = coarse.clone()
    done = InsertRounding(bits=6, range_fill="none").with_context(pipelines.context(data, range_margin=0.2))
    done(rounded)
    verify(rounded)
    (lookup,) = TableLookup.all_in(rounded)
    assert lookup.rounding is not None
    assert lookup.size == 2**6
    before, after = (run(m, data)["y"] for m in (coarse, rounded))
    assert np.abs(before - after).mean() <= 0.1 * max(before.std(), 1.0)
    assert not done(rounded).modified


def test_far_too_many_wide_tables_are_refused(monkeypatch):
    monkeypatch.setattr("onnx_fhe.passes.lower.tables.MAX_TENSOR_ENTRIES", 2**13)
    monkeypatch.setattr("onnx_fhe.passes.lower.tables.MAX_TENSOR_COARSE_ENTRIES", 2**10)
    with pytest.raises(LimitError) as refused:
        fused(dense("f = Mul(a, m)", wq=np.full((4, 6), 127, np.int8), m=np.float32([1, 2, 3, 4])))
    assert "'n3' (Gemm)" in str(refused.value)
    assert "4 different tables" in str(refused.value)
    assert "prune" in str(refused.value)


def test_other_levels_are_refused():
    with pytest.raises(PipelineError, match="does not run on a model of the float level"):
        FuseTlu()(pipelines.model("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }"))


def test_raw_outputs_get_the_observed_range():
    model, data = dense("f = Relu(a)"), {"x": inputs(300, 6)}
    sound, observed = fused(model), fused(model, data, range_margin=0.05)
    spans = []
    for one in (sound, observed):
        decrypt = pipelines.node(one, "Decrypt")
        low, high = (decrypt.attributes[k].as_int() for k in ("low", "high"))
        raw = run(one, data, [decrypt.inputs[0].name])[decrypt.inputs[0].name]
        assert low <= raw.min()
        assert raw.max() <= high
        spans.append(high - low)
    assert spans[1] < spans[0]


@given(seed=st.integers(0, 10**6), names=st.lists(st.sampled_from(sorted(CHAINS)), min_size=1, max_size=3))
@settings(max_examples=15)
def test_random_chains_are_exact_on_the_whole_range(seed, names):
    """Random integers of the declared range, corners included: tables are entered all over."""
    ends = ["a", *(f"f{i}" for i in range(len(names) - 1)), "f"]
    chain = " ".join(CHAINS[n].format(a=ends[i], f=ends[i + 1], i=f"_{i}") for i, n in enumerate(names))
    model = dense(chain, wq=integers(4, 6, seed=seed), **CONSTANTS)
    after = fused(model)
    _, values = pipelines.random_integers(after, 60, seed)
    # The client's inputs that are quantized to these integers.
    data = {"x": (next(iter(values.values())) * SCALES["s"]).astype(np.float32)}
    assert_same(model, after, data)
