"""Ranges and bit widths: sound bounds hold for every run, observed ones for the calibration data."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.analysis.ranges.margins import widened
from onnx_fhe.analysis.ranges.ranges import SoundRanges, declare, lookup_bounds
from onnx_fhe.analysis.ranges.tails import Extremes
from onnx_fhe.ir import annotations as notes
from onnx_fhe.ir.errors import DataError, PipelineError
from onnx_fhe.ir.ops import TableLookup
from onnx_fhe.ir.runtime import Session, run
from onnx_fhe.passes import Context
from onnx_fhe.passes.inspect.analyze_bit_widths import AnalyzeBitWidths
from onnx_fhe.passes.inspect.analyze_ranges import AnalyzeRanges
from onnx_fhe.testing import pipelines, strategies
from onnx_fhe.testing.integers import IntegerBuilder

DATA = {"input": np.random.default_rng(0).uniform(-1, 1, (100, 5)).astype(np.float32)}


@pytest.fixture(scope="module")
def integer() -> ir.Model:
    return pipelines.apply(
        pipelines.imported(pipelines.dense(5, 6, 3)),
        "normalize,quantize{weights=4 inputs=4},lower-to-integer,fuse-tlu,insert-rounding{bits=4}",
        DATA,
    )


def assert_contains(model: ir.Model, values: dict[str, np.ndarray], server: ir.Model) -> int:
    """Every value of the encrypted part is within its sound bounds; returns how many there are."""
    sound = SoundRanges(model)
    by_name = {v.name: v for n in model.graph for v in n.outputs}
    names = [str(v.name) for n in server.graph for v in n.outputs if v.name in by_name]
    for name, array in Session(server, names).run_batched(values).items():
        low, high = sound.of(by_name[name])
        assert (array >= low).all(), name
        assert (array <= high).all(), name
    return len(names)


@given(proto=strategies.networks(), seed=st.integers(0, 1000))
@settings(max_examples=12)
def test_sound_ranges_contain_every_run(proto, seed, zoo):
    data = zoo.samples(proto, 40, seed)
    model = pipelines.imported(proto)
    for one in (
        "normalize,quantize{weights=4 inputs=4},lower-to-integer,fuse-tlu",
        "insert-rounding{bits=4}",
    ):
        model = pipelines.apply(model, one, data)
        server, values = pipelines.random_integers(model, 50, seed)
        assert assert_contains(model, values, server) > 2


@given(
    seed=st.integers(0, 10**6),
    channels=st.sampled_from([1, 3]),
    step=st.sampled_from([1, 2, 8]),
    axis=st.sampled_from([1, 2]),
)
def test_bounds_of_a_lookup_are_tight(seed, channels, step, axis):
    """Over all inputs between the bounds a table's outputs reach exactly the bounds found."""
    random = np.random.default_rng(seed)
    b = IntegerBuilder(seed)
    x = b.encrypt("x", (3, 3), 0, 40)
    table = random.integers(-9, 10, (channels, 12))
    b.decrypt(b.lookup(x, table, random.integers(-20, 20, channels), step, axis))
    node = pipelines.node(b.model(), "TableLookup")
    low = random.integers(-30, 40, (1, 3, 3)).astype(np.float32)
    high = low + random.integers(0, 30, (1, 3, 3))
    every = low + np.minimum(np.arange(31).reshape(-1, 1, 1), high - low)
    out = run(b.model(), {"x": every.astype(np.float32)}, [node.outputs[0].name])[node.outputs[0].name]
    smallest, largest = lookup_bounds(TableLookup.of(node), low, high)
    np.testing.assert_array_equal(smallest[0], out.min(axis=0))
    np.testing.assert_array_equal(largest[0], out.max(axis=0))


def test_sound_ranges_of_linear_operators_are_tight():
    b = IntegerBuilder()
    x = b.encrypt("x", (4,), -3, 5)
    b.decrypt(b.dense(x, 6))
    model = b.model()
    gemm = pipelines.node(model, "Gemm")
    weights = pipelines.constant(gemm, 1)
    low, high = SoundRanges(model).of(gemm.outputs[0])
    corners = np.where(weights > 0, 5, -3)  # the worst input of each output
    np.testing.assert_array_equal(high[0], (weights * corners).sum(axis=1))
    np.testing.assert_array_equal(low[0], (weights * np.where(weights > 0, -3, 5)).sum(axis=1))


def test_ranges_of_every_integer_operator():
    b = IntegerBuilder()
    x, y = b.encrypt("x", (2, 4), -3, 5), b.encrypt("z", (2, 4), 0, 7)
    v = b.op("Sub", b.op("Neg", x), b.op("Mul", y, b.constant([[2], [-3]])))
    v = b.op("Transpose", b.op("Add", v, b.constant(4)), perm=[0, 2, 1])
    v = b.op("ReduceSum", v, b.constant([1], np.int64), keepdims=0)
    v = b.op("RoundBits", v, domain="onnx_fhe", lsbs_to_remove=2, mode="exact")
    b.decrypt(b.op("Unsqueeze", v, b.constant([1], np.int64)))
    model = b.model()
    low, high = SoundRanges(model).of(pipelines.node(model, "ReduceSum").outputs[0])
    np.testing.assert_array_equal(low, [[4 * (4 - 5 - 14), 4 * (4 - 5 + 0)]])
    np.testing.assert_array_equal(high, [[4 * (4 + 3 - 0), 4 * (4 + 3 + 21)]])
    low, high = SoundRanges(model).of(pipelines.node(model, "RoundBits").outputs[0])
    np.testing.assert_array_equal(low, [[-60, -4]])
    np.testing.assert_array_equal(high, [[28, 112]])
    server, values = pipelines.random_integers(model, 100)
    assert_contains(model, values, server)


def test_bounds_are_only_asked_of_integers():
    model = pipelines.apply(
        pipelines.imported(pipelines.dense(5, 6, 3)), "normalize,quantize{weights=4},lower-to-integer", DATA
    )
    with pytest.raises(KeyError, match="Relu"):
        SoundRanges(model).of(pipelines.node(model, "Relu").outputs[0])


@given(
    st.integers(-1000, 1000), st.integers(0, 1000), st.floats(0, 2), st.integers(0, 500), st.integers(0, 500)
)
def test_declared_ranges(low, span, margin, below, above):
    samples = Extremes(np.array([[low], [low]]), np.array([[low], [low + span]]))
    seen = samples.range
    sound = seen[0] - below, seen[1] + above
    found = declare(sound, samples, margin)
    assert sound[0] <= found[0] <= seen[0]
    assert seen[1] <= found[1] <= sound[1]
    wide = widened(samples, margin, 1e-3)
    assert wide[1] - seen[1] >= margin * span
    assert wide[1] - seen[1] < margin * span + 1.5
    assert (wide[1] - seen[1] >= 1) == (margin > 0)
    assert declare(sound, None, margin) is sound


def test_annotations_of_ranges(integer):
    model = integer.clone()
    both = AnalyzeRanges(context=Context(calibration=DATA))
    assert both(model).modified
    assert not both(model).modified
    gemm = pipelines.node(model, "Gemm")
    found = notes.get(gemm.outputs[0])
    seen = run(model, DATA, [gemm.outputs[0].name])[gemm.outputs[0].name]
    assert (found.low, found.high) == (seen.min(), seen.max())
    low, high = SoundRanges(model).of(gemm.outputs[0])
    assert (found.sound_low, found.sound_high) == (low.min(), high.max())
    assert found.sound_low < found.low
    assert found.high < found.sound_high


def test_modes_of_analyze_ranges(integer):
    model = integer.clone()
    with pytest.raises(DataError, match="needs calibration data"):
        AnalyzeRanges(mode="observed")(model)
    assert AnalyzeRanges(mode="both")(model).modified  # without data: sound alone
    assert not AnalyzeRanges(mode="sound")(model).modified
    found = notes.get(pipelines.node(model, "Gemm").outputs[0])
    assert (found.low, found.high) == (found.sound_low, found.sound_high)
    assert AnalyzeRanges(mode="observed", context=Context(calibration=DATA))(model).modified
    assert notes.get(pipelines.node(model, "Gemm").outputs[0]).high < found.sound_high
    with pytest.raises(PipelineError):
        AnalyzeRanges(mode="guessed")


def test_the_clients_part_is_not_analysed():
    """A product of two decrypted tensors is no integer of the circuit."""
    b = IntegerBuilder()
    b.decrypt(b.dense(b.encrypt("x", (4,)), 3), "y")
    b.results = ["t"]
    b.op("MatMul", "y", b.op("Transpose", "y"), output="t")
    model = b.model()
    assert AnalyzeRanges(mode="sound")(model).modified
    assert notes.get(pipelines.node(model, "MatMul").outputs[0]).low is None
    assert notes.get(pipelines.node(model, "Gemm").outputs[0]).low is not None


def test_only_the_integer_level(zoo):
    model = pipelines.imported(zoo.mlp())
    for one in (AnalyzeRanges(), AnalyzeBitWidths()):
        with pytest.raises(PipelineError, match="does not run on a model of the float level"):
            one(model)


@pytest.mark.parametrize(
    ("keep", "mode", "bits", "table", "bootstraps"),
    [(None, "exact", 6, 6, 15), (3, "exact", 7, 3, 15 * 5), (3, "approximate", 7, 3, 15)],
)
def test_widths_around_a_table(keep, mode, bits, table, bootstraps):
    b = IntegerBuilder()
    x = b.encrypt("x", (3, 5), 0, 63)
    x = b.lookup(x, np.arange(64)[None], [0])  # identity: x is known to be 0 .. 63
    if keep is None:
        b.decrypt(b.lookup(x, np.arange(64)[None], [0]))
    else:
        x = b.op("RoundBits", x, domain="onnx_fhe", lsbs_to_remove=4, mode=mode)
        b.decrypt(b.lookup(x, np.arange(8)[None], [0], step=16))
    width = TableLookup.all_in(b.model())[-1]
    assert (width.accumulator_bits, width.table_bits) == (bits, table)
    assert (width.elements, width.bootstraps) == (15, bootstraps)
    assert width.range == (0, 63 if keep is None else 7 * 16 + 7)


def test_annotations_of_bit_widths(integer):
    model = integer.clone()
    assert AnalyzeBitWidths()(model).modified
    assert not AnalyzeBitWidths()(model).modified
    lookup = pipelines.node(model, "TableLookup")
    assert notes.get(lookup.outputs[0]).table_bits == 4
    assert notes.get(lookup.outputs[0]).pbs == 6
    removed = TableLookup.of(lookup).lsbs_to_remove
    assert notes.get(lookup.inputs[0]).bits == 4 + removed


def test_annotations_survive_a_file(integer):
    model = integer.clone()
    AnalyzeRanges(mode="sound")(model)
    AnalyzeBitWidths()(model)
    again = pipelines.reload(model)
    for one in (AnalyzeRanges(mode="sound"), AnalyzeBitWidths()):
        one(again)
    for old, new in zip(model.graph, again.graph, strict=True):
        assert [notes.get(v) for v in old.outputs] == [notes.get(v) for v in new.outputs]
