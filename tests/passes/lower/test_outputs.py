"""The range of a raw output: made with what provably holds, and declared anew in one place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fhe.ir.integer_editing import IntegerEditor
from onnx_fhe.ir.ops import Decrypt
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.lower.outputs import read_shifted, restore, widen

ROOT = Path(__file__).resolve().parents[3]

TEXT = """
<ir_version: 10, opset_import: ["" : 21, "onnx_fhe" : 1]>
graph (float[N, 2] x) => (float[N, 2] y)
{
    [start] e = onnx_fhe.Encrypt <low = -40, high = 40> (x)
    [end] y = onnx_fhe.Decrypt <low = -40, high = 40> (e)
}
"""
DATA = {"x": np.float32([[-40, 40], [3, 5], [-1, 0]])}


def opened() -> tuple[ir.Model, Decrypt, IntegerEditor]:
    model = ir.from_onnx_text(TEXT)
    for node in model.graph:
        node.outputs[0].shape = model.graph.inputs[0].shape
    (decrypt,) = Decrypt.all_in(model)
    return model, decrypt, IntegerEditor(model).at(decrypt.node)


def test_what_is_added_on_the_server_the_client_takes_off():
    model, decrypt, edit = opened()
    offset = np.float32([[40, -3]])
    read = read_shifted(edit, decrypt, offset, (0, 80))
    restored = restore(edit, decrypt, -offset)
    assert (read, decrypt.range) == ([decrypt.input], (0, 80))
    assert model.graph.outputs == [restored]
    np.testing.assert_array_equal(run(model, DATA)["y"], DATA["x"])


def test_low_bits_may_be_left_out():
    model, decrypt, edit = opened()
    read = read_shifted(edit, decrypt, np.float32([[40]]), (0, 80), lsbs_to_remove=2)
    assert decrypt.rounding is not None
    assert (decrypt.lsbs_to_remove, decrypt.rounding.is_exact, len(read)) == (2, False, 2)
    np.testing.assert_array_equal(run(model, DATA)["y"], np.floor((DATA["x"] + 40) / 4 + 0.5) * 4)


def test_nothing_is_added_where_nothing_moves():
    model, decrypt, edit = opened()
    read_shifted(edit, decrypt, np.zeros((1, 2)), (-30, 31))
    assert (len(model.graph), decrypt.range) == (2, (-30, 31))


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ((-40, 40), (-64, 63), (-64, 63)),
        ((-40, 40), (0, 64), None),
        ((0, 5), (1, 7), (0, 7)),
        ((0, 0), (0, 1), None),
    ],
)
def test_a_range_grows_as_far_as_it_takes_no_more_bits(before, wanted, after):
    _, decrypt, _ = opened()
    decrypt.declare(*before)
    assert widen(decrypt, *wanted) is (after is not None)
    assert decrypt.range == (after or before)


def test_no_other_pass_declares_the_range_of_an_output():
    declares = re.compile(r"(?:decrypt|declares|output|end)\w*\.declare\(")
    found = {
        str(f.relative_to(ROOT)) for f in (ROOT / "passes").rglob("*.py") if declares.search(f.read_text())
    }
    assert found == {"passes/lower/outputs.py"}
