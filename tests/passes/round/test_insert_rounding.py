"""Rounding in front of tables: widths, offsets, phases, gains, and that nothing can leave its range by it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.ir.errors import DataError, PipelineError
from onnx_fhe.ir.ops import Decrypt, RoundBits, TableLookup
from onnx_fhe.ir.runtime import Session, run
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes import Context
from onnx_fhe.passes.framework.pipeline import parse_passes
from onnx_fhe.passes.round.insert_rounding import raising
from onnx_fhe.passes.round.insert_rounding.fill import fill_range
from onnx_fhe.passes.round.insert_rounding.insert_rounding import InsertRounding
from onnx_fhe.passes.round.insert_rounding.lattice import Channel, Width, width_for
from onnx_fhe.passes.round.insert_rounding.placing import place
from onnx_fhe.testing import pipelines

WIDE = "normalize,quantize{weights=5 activations=6 inputs=6},lower-to-integer,fuse-tlu"


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


DATA = {"input": uniform(120, 6)}
FRESH = {"input": uniform(1000, 6, seed=1)}


@pytest.fixture(scope="module")
def integer() -> ir.Model:
    """Two hidden layers at the integer level, with tables of many bits."""
    return pipelines.apply(pipelines.imported(pipelines.dense(6, 8, 7, 3)), WIDE, DATA)


def rounded(model: ir.Model, options: str = "", **context: object) -> ir.Model:
    """Round a copy; a second run must find nothing to do and say so."""
    (one,) = parse_passes(f"insert-rounding{{{options}}}")
    ready = one.with_context(pipelines.context(DATA, **context))
    after = model.clone()
    result = ready(after)
    assert result.modified == ("RoundBits" in [*pipelines.ops(after)])
    verify(after)
    before = ir.to_proto(after).SerializeToString(deterministic=True)
    assert not ready(after).modified
    assert ir.to_proto(after).SerializeToString(deterministic=True) == before
    return after


def lookups(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if n.op_type == "TableLookup"]


def error(model: ir.Model, reference: ir.Model) -> float:
    a, b = pipelines.outputs(model, FRESH), pipelines.outputs(reference, FRESH)
    return float(((a - b) ** 2).mean() / b.var())


def test_text_before_and_after(integer):
    assert pipelines.ops(integer)[4:-3].count("RoundBits") == 0
    after = rounded(integer, "bits=4 range-fill=none output-bits=0")
    names = pipelines.ops(after)
    inside = names[names.index("Encrypt") + 1 : names.index("Decrypt")]
    assert inside[:8] == [
        "Gemm",
        "Add",
        "RoundBits",
        "TableLookup",
        "Gemm",
        "Add",
        "RoundBits",
        "TableLookup",
    ]
    for lookup in TableLookup.all_in(after):
        assert lookup.lsbs_to_remove > 0
        assert lookup.step == lookup.rounding.unit
        assert lookup.rounding.mode == "approximate"
        assert lookup.size == 16
        assert (lookup.first == 0).all()
        assert pipelines.constant(lookup.source.producer(), 1).size == lookup.channels


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits_that_reach_the_tables(integer, bits):
    after = rounded(integer, f"bits={bits}")
    assert [TableLookup.of(n).table_bits for n in lookups(after)] == [bits, bits]
    assert error(after, integer) < {1: 0.8, 2: 0.3, 3: 0.1, 4: 0.05}.get(bits, 0.02)


def test_more_bits_lose_less(integer):
    errors = [error(rounded(integer, f"bits={b} output-bits=0"), integer) for b in (2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_narrow_tables_stay(integer, zoo):
    proto = zoo.mlp()
    narrow = pipelines.apply(
        pipelines.imported(proto),
        "normalize,quantize{weights=1 activations=1 inputs=1},lower-to-integer,fuse-tlu",
        zoo.samples(proto),
    )
    (one,) = parse_passes("insert-rounding{bits=8}")
    before = ir.to_proto(narrow).SerializeToString(deterministic=True)
    assert not one.with_context(Context(calibration=zoo.samples(proto)))(narrow).modified
    assert ir.to_proto(narrow).SerializeToString(deterministic=True) == before


def test_exact_mode_drops_no_bits_of_outputs(integer):
    after = rounded(integer, "bits=4 mode=exact")
    assert {r.mode for r in RoundBits.all_in(after)} == {"exact"}
    (decrypt,) = Decrypt.all_in(after)
    assert decrypt.rounding is None


@pytest.mark.parametrize("bits", [3, 5, 20])
def test_output_bits(integer, bits):
    after = rounded(integer, f"bits=5 output-bits={bits}", range_margin=0.2)
    (decrypt,) = Decrypt.all_in(after)
    if bits == 20:
        assert decrypt.rounding is None
        return
    assert decrypt.range == (0, (2**bits - 1) * decrypt.rounding.unit)
    assert error(after, rounded(integer, "bits=5 output-bits=0", range_margin=0.2)) < {3: 0.1, 5: 0.01}[bits]


def test_layers_by_name(integer):
    after = rounded(integer, 'bits=4 layers={"/0"=2 "/1"=0}')
    first, second = lookups(after)
    assert TableLookup.of(first).table_bits == 2
    assert TableLookup.of(second).step == 1
    by_table = rounded(integer, f'bits=4 layers={{"{lookups(integer)[1].name}"=3}}')
    assert [TableLookup.of(n).table_bits for n in lookups(by_table)] == [4, 3]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ('layers={"/9"=3}', "no table behind a node '/9'"),
        ('layers={"/2"=3}', "no table behind a node '/2'"),
        ('layers={"/0"=9}', "9"),
        ('layers={"/0"=-1}', "-1"),
        ("bits=9", "9"),
        ("bits=0", "0"),
        ("mode=sloppy", "sloppy"),
    ],
)
def test_wrong_options_are_refused(integer, options, found):
    with pytest.raises(PipelineError) as refused:
        rounded(integer, options)
    assert found in str(refused.value)
    assert "allowed:" in str(refused.value)


def test_it_needs_calibration_data(integer):
    with pytest.raises(DataError, match="needs calibration data"):
        InsertRounding()(integer.clone())


def test_a_model_without_tables_stays(integer):
    model = pipelines.apply(
        pipelines.imported(pipelines.dense(6, 3)),
        "normalize,quantize{weights=5},lower-to-integer,fuse-tlu",
        DATA,
    )
    assert not InsertRounding(context=Context(calibration=DATA))(model).modified


def test_other_levels_are_refused():
    with pytest.raises(PipelineError, match="does not run on a model of the float level"):
        InsertRounding()(pipelines.imported(pipelines.dense(6, 3)))


def test_auto_takes_the_fewest_within_the_tolerance(integer):
    widths = []
    for tolerance in (0.2, 0.01):
        notes: list[str] = []
        after = rounded(integer, f"bits=auto tolerance={tolerance} max-bits=8 output-bits=0", notes=notes)
        widths.append([TableLookup.of(n).table_bits for n in lookups(after)])
        assert error(after, integer) < 2 * tolerance
        assert "bits reach the tables" in notes[0]
    assert all(a <= b for a, b in zip(*widths, strict=True))
    assert sum(widths[0]) < sum(widths[1])


def test_auto_says_when_the_tolerance_is_out_of_reach(integer):
    notes: list[str] = []
    after = rounded(integer, "bits=auto tolerance=0 max-bits=3", notes=notes)
    assert [TableLookup.of(n).table_bits for n in lookups(after)] == [3, 3]
    assert "3, 3 bits reach the tables" in notes[0]
    assert "more than `tolerance` asks for" in notes[0]


def test_auto_raises_single_layers_where_classes_change(integer, monkeypatch):
    """A few close decisions are lost in the variance of the outputs."""
    few = rounded(integer, "bits=auto tolerance=0.15", range_margin=0.2)
    monkeypatch.setattr(raising, "kind_of", lambda *_: "classes")
    monkeypatch.setattr(raising, "MAX_CHANGED_CLASSES", 0.002)
    more = rounded(integer, "bits=auto tolerance=0.15", range_margin=0.2)
    assert error(more, integer) < error(few, integer)
    assert sum(TableLookup.of(n).table_bits for n in lookups(few)) < sum(
        TableLookup.of(n).table_bits for n in lookups(more)
    )
    monkeypatch.setattr(raising, "AFFORDABLE_OPERATIONS", 0.0)
    expensive = rounded(integer, "bits=auto tolerance=0.15", range_margin=0.2)
    assert [TableLookup.of(n).table_bits for n in lookups(expensive)] == [
        TableLookup.of(n).table_bits for n in lookups(few)
    ]


def test_auto_leaves_given_layers_alone(integer):
    after = rounded(integer, 'bits=auto tolerance=0.05 layers={"/0"=7}')
    assert TableLookup.of(lookups(after)[0]).table_bits == 7


def test_gains_fill_the_range(integer):
    """A channel that filled an eighth of the range fills nearly all; its weights or a Mul have the factor."""
    full, none = (rounded(integer, f"bits=3 range-fill={f} output-bits=0") for f in ("full", "none"))
    usage = []
    for model in (none, full):
        lookup = lookups(model)[0]
        source = lookup.inputs[0].producer().inputs[0]
        values = run(model, DATA, [source.name])[source.name]
        width = TableLookup.of(lookup).accumulator_bits
        usage.append(np.ptp(values, axis=0) / 2**width)
    assert usage[1].min() > usage[0].min()
    assert usage[1].mean() > usage[0].mean() + 0.05
    old, new = (pipelines.constant(pipelines.node(m, "Gemm"), 1) for m in (none, full))
    ratio = np.abs(new).sum(axis=1) / np.abs(old).sum(axis=1)
    np.testing.assert_allclose(ratio, np.rint(ratio))
    assert ratio.max() > 1
    np.testing.assert_array_equal(new, old * ratio[:, None])


@pytest.mark.parametrize("fill", ["none", "free", "full"])
@pytest.mark.parametrize("bits", [2, 4, 7])
def test_sound_ranges_overflow_never(fill, bits):
    model = pipelines.apply(pipelines.imported(pipelines.dense(6, 8, 7, 3)), WIDE, DATA, range_mode="sound")
    after = rounded(model, f"bits={bits} range-fill={fill}", range_mode="sound")
    for seed in range(3):
        assert pipelines.overflows(after, 200, seed).by_node == {}


def test_observed_ranges_hardly_overflow(integer):
    from onnx_fhe.backends.reference import count_overflows
    from onnx_fhe.ir.partition import partition

    after = rounded(integer, "bits=4")
    parts = partition(after)
    inner = run(parts.prologue, FRESH)
    values = {v.name: inner[v.name] for v in parts.server.graph.inputs}
    assert count_overflows(parts.server, values).values <= 0.001 * 1000 * 15


@given(span=st.integers(1, 2**18), bits=st.integers(1, 8))
def test_the_safe_range(span, bits):
    width = width_for(span, bits)
    assert width.bits - width.removed == bits
    assert width.top >= span
    if width.removed:
        half = 2**width.removed // 2
        # Rounding the largest value up stays within L bits, and one bit less would not hold the span.
        assert (width.top + half) // 2**width.removed <= 2**bits - 1
        assert Width(width.bits - 1, width.removed - 1).top < span


@st.composite
def channels(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, span = draw(st.integers(-5000, 5000)), draw(st.integers(20, 3000))
    entries = draw(st.integers(1, 6))
    curve = np.sort(random.normal(size=span + 1)) if draw(st.booleans()) else random.normal(size=span + 1)
    table = np.rint((2**entries - 1) * (curve - curve.min()) / np.ptp(curve))
    inputs = np.clip(np.rint(random.normal(low + span / 2, span / 6, 300)), low, low + span)
    targets = table[(inputs - low).astype(int)]
    return Channel(low, low + span, low, table, inputs, targets)


@given(channel=channels(), bits=st.integers(1, 6), gain=st.integers(1, 4), noise=st.sampled_from([0.0, 0.1]))
@settings(max_examples=60)
def test_a_channel_on_its_lattice(channel, bits, gain, noise):
    width = width_for((channel.high - channel.low) * gain, bits)
    placed = place(channel, width, gain, noise)
    assert channel.low * gain + placed.offset >= 0
    assert channel.high * gain + placed.offset <= width.top
    assert placed.table.shape == (2**bits,)
    assert (placed.table == np.rint(placed.table)).all()
    assert placed.table.min() >= channel.table.min()
    assert placed.table.max() <= channel.table.max()


@given(channels())
@settings(max_examples=30)
def test_a_constant_table_loses_nothing(channel):
    width = width_for(channel.high - channel.low, 3)
    same = Channel(
        channel.low,
        channel.high,
        channel.first,
        0 * channel.table + 5,
        channel.inputs,
        0 * channel.targets + 5,
    )
    assert place(same, width).error < 1e-12
    assert (place(same, width).table == 5).all()


def test_the_phase_puts_steps_where_the_table_jumps():
    """A table that jumps once is kept exactly, wherever the jump is: the lattice moves there."""
    for jump in range(40, 60):
        low, span = -7, 100
        inputs = np.repeat(np.arange(low, low + span + 1), 3).astype(float)
        table = (np.arange(span + 1) >= jump).astype(float) * 3
        channel = Channel(low, low + span, low, table, inputs, table[(inputs - low).astype(int)])
        width = Width(7, 4)
        placed = place(channel, width)
        index = (np.arange(low, low + span + 1) + placed.offset + 8) // 16
        np.testing.assert_array_equal(placed.table[index], table)


@given(
    spans=st.lists(st.integers(3, 900), min_size=2, max_size=6),
    bits=st.integers(2, 5),
    room=st.floats(1, 1000),
)
def test_gains_never_leave_the_range(spans, bits, room):
    spans = np.array(spans)
    source = ir.Value(name="x")  # computed by nothing: no weights to be seen, fresh
    width, gains = fill_range(source, spans, width_for(int(spans.max()), bits), "full", room)
    assert (gains >= 1).all()
    assert (gains <= max(room, 1)).all()
    assert (gains * spans <= width.top).all()
    assert width.bits - width.removed == bits or not width.removed


def test_full_ranges_stay_exact_in_float32():
    """Gains stop where the sound range, many times the declared one, would leave the exact integers."""
    random = np.random.default_rng(0)
    proto = pipelines.dense(400, 6, 6, 2)
    data = {"input": random.uniform(-1, 1, (60, 400)).astype(np.float32)}
    model = pipelines.apply(
        pipelines.imported(proto),
        "normalize,quantize{weights=8 activations=8 inputs=8 method=nearest},lower-to-integer,fuse-tlu,"
        "insert-rounding{bits=5 range-fill=full}",
        data,
    )
    verify(model)
    assert len(lookups(model)) == 2


def test_a_layer_that_is_left_alone_holds_what_the_rounded_ones_give_it():
    """Its own table was made for accumulators that nothing had rounded."""
    integer = pipelines.apply(pipelines.imported(pipelines.dense(6, 8, 7, 3)), WIDE, DATA, range_margin=0.0)
    last = lookups(integer)[-1].name
    after = rounded(integer, f'bits=2 layers={{"{last}"=0}}', range_margin=0.0)
    table = next(n for n in after.graph if n.name == last)
    source = Session(after, [table.inputs[0].name]).run_batched(DATA)[table.inputs[0].name]
    entries, first = (v.const_value.numpy() for v in table.inputs[1:3])
    assert (source >= first).all()
    assert (source <= first + entries.shape[1] - 1).all()
    before = next(n for n in integer.graph if n.name == last)
    assert not np.array_equal(first, before.inputs[2].const_value.numpy()), "it had to move"
