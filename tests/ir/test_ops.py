"""The views of the circuit's operators: what they read, what they derive, and that nothing else reads it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fhe.ir import ops
from onnx_fhe.ir.bits import bits_of
from onnx_fhe.ir.dialect import DOMAIN, function_protos
from onnx_fhe.ir.editing import GraphEditor
from onnx_fhe.ir.errors import VerificationError
from onnx_fhe.ir.ops import (
    ActivationQuantizer,
    Decrypt,
    DequantizeLinear,
    Encrypt,
    PairLookup,
    RoundBits,
    TableLookup,
    along_axis,
)
from onnx_fhe.ir.ops.view import View
from onnx_fhe.ir.runtime import Session, run_nodes

ROOT = Path(__file__).resolve().parents[2]

CIRCUIT = """
<ir_version: 10, opset_import: ["" : 21, "onnx_fhe" : 1]>
graph (float[N, 3] x) => (float[N, 3] y)
<float[3, 4] table = {0, 1, 2, 3, 3, 2, 1, 0, 5, 5, 5, 5}, float[3] first = {-8, 0, 16}>
{
    [start] e = onnx_fhe.Encrypt <low = -9, high = 40> (x)
    [round] r = onnx_fhe.RoundBits <lsbs_to_remove = 3, mode = MODE> (e)
    [table] t = onnx_fhe.TableLookup <step = 8, axis = -1> (r, table, first)
    [end] y = onnx_fhe.Decrypt <low = 0, high = 5> (t)
}
"""


def circuit(mode="exact"):
    model = ir.from_onnx_text(CIRCUIT.replace("MODE", f'"{mode}"'))
    for node in model.graph:
        node.outputs[0].shape = model.graph.inputs[0].shape
    return model


def test_views_find_their_nodes_and_no_others():
    nodes = list(circuit().graph)
    views = (Encrypt, RoundBits, TableLookup, Decrypt)
    for node, own in zip(nodes, views, strict=True):
        assert own.of(node) == own.match(node) == own(node)
        assert all(view.match(node) is None for view in (*views, PairLookup) if view is not own)
    assert TableLookup.match(None) is None
    assert RoundBits.match(ir.node("RoundBits", [], domain="elsewhere")) is None
    with pytest.raises(TypeError, match="Encrypt 'start' is no Decrypt"):
        Decrypt.of(nodes[0])


def test_every_operator_of_the_dialect_has_a_schema_a_body_and_a_view():
    schemas = {s.name for s in onnx.defs.get_all_schemas() if s.domain == DOMAIN}
    views = [v for v in vars(ops).values() if isinstance(v, type) and issubclass(v, View)]
    assert schemas == {p.name for p in function_protos()}
    assert schemas == {v.op_type for v in views if v.domain == DOMAIN}


def test_attributes_that_a_node_leaves_out_are_those_of_the_schemas():
    x = ir.Value(name="x")
    bare = {
        name: ir.Node("onnx_fhe", name, [x], num_outputs=1) for name in ("Encrypt", "Decrypt", "RoundBits")
    }
    for view in (Encrypt, Decrypt):
        assert view.of(bare[view.op_type]).range == (0, 1)
    rounding = RoundBits.of(bare["RoundBits"])
    assert (rounding.lsbs_to_remove, rounding.unit, rounding.mode) == (0, 1, "exact")
    lookup = TableLookup.of(ir.Node("onnx_fhe", "TableLookup", [x, x, x], num_outputs=1))
    assert (lookup.step, lookup.axis, lookup.p_error) == (1, 1, None)
    assert PairLookup.of(ir.Node("onnx_fhe", "PairLookup", [x, x, x, x], num_outputs=1)).axis == 1


@pytest.mark.parametrize(("mode", "bootstraps"), [("exact", 4 * 3), ("approximate", 3)])
def test_what_a_table_declares(mode, bootstraps):
    model = circuit(mode)
    (lookup,) = TableLookup.all_in(model)
    assert lookup.source is model.graph[0].outputs[0]
    assert lookup.input is model.graph[1].outputs[0]
    assert (lookup.name, lookup.channels, lookup.size, lookup.step, lookup.axis) == ("table", 3, 4, 8, -1)
    assert (lookup.entry_range, lookup.range) == ((0, 5), (-8, 16 + 3 * 8 + 3))
    assert (lookup.lsbs_to_remove, lookup.table_bits, lookup.accumulator_bits) == (3, 2, 5)
    assert (lookup.elements, lookup.bootstraps) == (3, bootstraps)
    assert lookup.entry_inputs[0].tolist() == [-8, 0, 8, 16]
    assert lookup.channel_of_elements((1, 3)).tolist() == [[0, 1, 2]]
    assert lookup.integer_entries.dtype == np.int64


def test_a_table_is_called_after_the_layer_that_feeds_it():
    (lookup,) = TableLookup.all_in(circuit())
    assert lookup.title == ("table", "TableLookup")  # nothing but an input feeds it
    weight = ir.Value(name="weight", const_value=ir.tensor(np.eye(3, dtype=np.float32)))
    layer = ir.node("MatMul", [lookup.source, weight], name="dense")
    lookup.rounding.node.replace_input_with(0, layer.outputs[0])
    assert lookup.title == ("dense", "MatMul")
    lookup.node.metadata_props["onnx_fhe.layer"] = "before it was taken apart"
    assert lookup.title[0] == "before it was taken apart"


def test_without_rounding_every_integer_of_the_range_reaches_the_table():
    model = circuit()
    (lookup,) = TableLookup.all_in(model)
    lookup.node.replace_input_with(0, lookup.source)
    assert (lookup.rounding, lookup.lsbs_to_remove, lookup.span) == (None, 0, 31)
    assert (lookup.table_bits, lookup.accumulator_bits, lookup.bootstraps) == (5, 5, 3)


def test_without_rounding_an_entry_holds_for_several_accumulators():
    model = circuit()
    (lookup,) = TableLookup.all_in(model)
    lookup.node.replace_input_with(0, lookup.source)
    lookup.set_axis(1)
    first, last = lookup.range
    x = np.arange(first, last + 2, dtype=np.float32)
    given = {lookup.input: np.broadcast_to(x[:, None], (len(x), 3)).copy()}
    (found,) = run_nodes([lookup.node], given, [lookup.output], 21)
    wanted = [lookup.entries[c, np.clip((x - lookup.first[c]) // 8, 0, 3).astype(int)] for c in range(3)]
    np.testing.assert_array_equal(found, np.stack(wanted, axis=1))


def test_a_table_off_the_grid_of_its_rounding():
    model = circuit()
    (lookup,) = TableLookup.all_in(model)
    lookup.check_rounding()
    lookup.set_step(4)
    with pytest.raises(VerificationError, match="the step of a table is not that of its rounding"):
        lookup.check_rounding()
    lookup.set_step(8)
    lookup.node.inputs[2].const_value = ir.tensor(np.float32([-8, 0, 3]))
    with pytest.raises(VerificationError, match="a table begins off the grid"):
        lookup.check_rounding()


def test_a_computed_table_is_refused_by_name():
    model = circuit()
    lookup = TableLookup.all_in(model)[0]
    lookup.node.replace_input_with(1, model.graph[0].outputs[0])
    with pytest.raises(VerificationError, match="a table is not constant") as caught:
        _ = lookup.size
    assert caught.value.where.node == "table"


def test_an_entry_that_is_no_integer_is_refused_by_name():
    (lookup,) = TableLookup.all_in(circuit())
    lookup.node.inputs[1].const_value = ir.tensor(np.full((3, 4), 0.5, np.float32))
    with pytest.raises(VerificationError, match="is not an integer"):
        _ = lookup.integer_entries


def test_views_write_what_they_read():
    (lookup,), (end,) = (view.all_in(circuit()) for view in (TableLookup, Decrypt))
    lookup.set_p_error(1e-5)
    lookup.set_axis(1)
    assert (lookup.p_error, lookup.axis) == (1e-5, 1)
    lookup.set_p_error(None)
    assert "p_error" not in lookup.node.attributes
    end.declare(-2.5, 6.1)
    assert (end.range, end.bits) == ((-3, 7), 4)


def test_made_nodes_say_what_they_were_made_with():
    x, y, table, first = (ir.Value(name=n) for n in ("x", "y", "table", "first"))
    encrypt = Encrypt.of(Encrypt.make(x, low=-3, high=4, name="e"))
    assert (encrypt.name, encrypt.input, encrypt.range) == ("e", x, (-3, 4))
    decrypt = Decrypt.of(Decrypt.make(x, low=-2.5, high=6.0, name="d"))
    assert (decrypt.name, decrypt.input, decrypt.range) == ("d", x, (-3, 6))
    rounding = RoundBits.of(RoundBits.make(x, lsbs_to_remove=2, mode="approximate"))
    again = RoundBits.of(rounding.of_another(y))
    assert (again.input, again.lsbs_to_remove, again.is_exact) == (y, 2, False)
    lookup = TableLookup.of(TableLookup.make(x, table, first, step=4, axis=2))
    assert (lookup.step, lookup.axis, list(lookup.node.inputs)) == (4, 2, [x, table, first])
    pairs = PairLookup.of(PairLookup.make(x, y, table, first, axis=3))
    assert (pairs.operands, pairs.axis) == ((x, y), 3)


QDQ = """
<ir_version: 10, opset_import: ["" : 21]>
graph (float[N, 3] x) => (float[N, 3] y, float[N, 3] z)
<float[3] scale = {0.5, 1.0, 2.0}, uint8[3] zero = {1, 2, 3}, uint8 low = {0}, uint8 high = {15}>
{
    [to_codes] q = QuantizeLinear (x, scale, zero)
    [narrow] c = Clip (q, low, high)
    [to_floats] y = DequantizeLinear <axis = -1> (c, scale, zero)
    [alone] z = DequantizeLinear (x, scale)
}
"""


def test_a_quantizer_is_three_nodes_and_its_codes_those_of_the_clip():
    model = ir.from_onnx_text(QDQ)
    quantize, clip, dequantize, alone = model.graph
    found = ActivationQuantizer.match(dequantize)
    assert (found.quantize.node, found.clip, found.dequantize.node) == (quantize, clip, dequantize)
    assert found.source is model.graph.inputs[0]
    assert (found.quantize.axis, found.dequantize.axis, found.dequantize.block_size) == (1, -1, 0)
    assert (found.dequantize.code_range, found.dequantize.integer_range) == ((0, 15), (-3, 14))
    assert found.dequantize.per_channel(found.dequantize.scale, 3).shape == (1, 1, 3)
    assert [ActivationQuantizer.match(n) for n in (quantize, clip, alone, None)] == [None] * 4


RUNS = QDQ.replace(", float[N, 3] z)", ")").replace("[alone] z = DequantizeLinear (x, scale)", "")
"""Without the node that no runtime takes."""


def test_an_inserted_quantizer_is_found_again():
    model = ir.from_onnx_text(RUNS)
    constants = model.graph.initializers
    edit, x = GraphEditor(model), model.graph.inputs[0]
    inserted = ActivationQuantizer.insert(
        edit.at(model.graph[0]),
        x,
        "inner",
        scale=constants["scale"],
        zero_point=constants["zero"],
        ends=[constants["low"], constants["high"]],
        axis=1,
    )
    assert ActivationQuantizer.match(inserted.dequantize.node) == inserted
    assert [n.name for n in inserted.nodes] == ["inner_quantize", "inner_clip", "inner_dequantize"]
    assert (inserted.source, inserted.output.dtype, inserted.output.shape) == (x, ir.DataType.FLOAT, x.shape)
    assert inserted.dequantize.input.dtype is ir.DataType.UINT8
    assert (inserted.dequantize.axis, inserted.dequantize.code_range) == (1, (0, 15))
    data = np.random.default_rng(0).uniform(-3, 20, (50, 3)).astype(np.float32)
    found = Session(model, ["y", str(inserted.output.name)]).run({"x": data})
    assert np.array_equal(found["y"], found[str(inserted.output.name)])


def test_a_quantizer_may_round_in_other_units_than_its_codes_stand_for():
    model = ir.from_onnx_text(RUNS)
    edit, x = GraphEditor(model), model.graph.inputs[0]
    one, none = edit.constant("one", np.float32(1)), edit.constant("none", np.int8(0))
    scale = edit.constant("half", np.float32(0.5))
    inserted = ActivationQuantizer.insert(
        edit, x, "inner", scale=scale, zero_point=none, rounding=(one, none), last="last"
    )
    assert (inserted.clip, inserted.dequantize.name) == (None, "last")
    assert inserted.dequantize.input.dtype is ir.DataType.INT8
    found = Session(model, [str(inserted.output.name)]).run({"x": np.float32([[1.2, -3.0, 7.9]])})
    np.testing.assert_array_equal(found[str(inserted.output.name)], np.float32([[0.5, -1.5, 4.0]]))


def test_codes_without_a_clip_are_all_that_their_type_holds():
    model = ir.from_onnx_text(QDQ)
    dequantize = DequantizeLinear.of(model.graph[2])
    dequantize.node.replace_input_with(0, model.graph[0].outputs[0])
    assert ActivationQuantizer.match(dequantize.node).clip is None
    assert dequantize.code_range == (0, 255)
    dequantize.input.type = ir.TensorType(ir.DataType.INT8)
    assert dequantize.code_range == (-128, 127)
    assert DequantizeLinear.of(model.graph[3]).zero_point is None


@given(st.integers(-(2**24), 2**24), st.integers(0, 2**24))
def test_bits_of_a_range_are_the_fewest_that_hold_it(low, span):
    high, bits = low + span, bits_of(low, low + span)

    def holds(n):
        return (low >= 0 and high < 2**n) if low >= 0 else (-(2 ** (n - 1)) <= low and high < 2 ** (n - 1))

    assert holds(bits)
    assert bits == 1 or not holds(bits - 1)
    assert bits_of(0, 0) == 1
    assert bits_of(0, 0, least=0) == 0


def test_channels_lie_along_an_axis_counted_from_either_end():
    assert along_axis(np.arange(3), -2, 4).shape == along_axis(np.arange(3), 2, 4).shape == (1, 1, 3, 1)
    assert along_axis(np.zeros(1), 1, 3).shape == (1, 1, 1)


BY_HAND = re.compile(
    r"""get_(?:int|float|string)\(\s*"(?:step|lsbs_to_remove|low|high|p_error|mode)"|"""
    r"""int_of\([^()]*"(?:step|lsbs_to_remove|low|high)"|"""
    r"""Attr(?:Int64|Float32)\(\s*"(?:step|axis|low|high|p_error|lsbs_to_remove)"|"""
    r"""attributes\["(?:step|lsbs_to_remove|low|high|p_error)"\]|"""
    r"""lsbs_to_remove":|"""
    r"""edit\.add\(\s*"(?:Quantize|Dequantize)Linear\""""
)


@pytest.mark.parametrize("room", ["ir", "analysis", "passes", "backends", "onnx_fhe"])
def test_no_other_file_reads_or_writes_these_attributes(room):
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in sorted((ROOT / room).rglob("*.py"))
        if "ops" not in file.relative_to(ROOT).parts and not file.is_symlink()
        for match in BY_HAND.finditer(file.read_text())
    ]
    assert not found, "\n".join(found)


def test_the_check_sees_what_it_is_for():
    assert BY_HAND.search('node.attributes.get_int("step", 1) or 1')
    assert BY_HAND.search('node.attributes["low"] = ir.AttrInt64("low", 3)')
    assert BY_HAND.search('self.edit.add("QuantizeLinear", [x, scale], name)')
    assert not BY_HAND.search('int_of(node, "axis", 0)')
