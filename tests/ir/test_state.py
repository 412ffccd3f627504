"""What the metadata of a model says: read, written, and what saved models hold."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

from onnx_fhe.ir.level import Level, level_of, set_level
from onnx_fhe.ir.state import ModelState

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
graph (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }
"""
SAVED = {
    "onnx_fhe.level": "integer",
    "onnx_fhe.file": "a.onnx",
    "onnx_fhe.sha256": "0" * 64,
    "onnx_fhe.normalized": "true",
    "onnx_fhe.trained_quantized": "true",
    "onnx_fhe.batch": "fixed",
    "onnx_fhe.global_p_error": "0.01",
}
STATE = ModelState(Level.INTEGER, "a.onnx", "0" * 64, True, True, True, 0.01)


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(TEXT)


def test_a_saved_model_says_what_it_said(model):
    model.metadata_props.update(SAVED)
    assert ModelState.of(model) == STATE


def test_what_is_recorded_has_the_spelling_of_saved_models(model):
    STATE.record(model)
    assert dict(model.metadata_props) == SAVED
    ModelState().record(model)
    assert not model.metadata_props


def test_one_entry_changes_and_the_others_stay_where_they_are(model):
    model.metadata_props.update({"author": "someone", "onnx_fhe.batch": "fixed", "onnx_fhe.level": "strange"})
    replace(ModelState.of(model), normalized=True).record(model)
    assert list(model.metadata_props.items()) == [
        ("author", "someone"),
        ("onnx_fhe.batch", "fixed"),
        ("onnx_fhe.level", "strange"),
        ("onnx_fhe.normalized", "true"),
    ]


@pytest.mark.parametrize("text", ["many", "0", "1", "nan", "-1"])
def test_an_error_that_is_no_probability_counts_as_none(model, text):
    model.metadata_props["onnx_fhe.global_p_error"] = text
    assert ModelState.of(model).global_p_error is None


def test_the_level_is_what_the_operators_show_where_none_is_recorded(model):
    assert ModelState.of(model).level is None
    assert level_of(model) is Level.FLOAT
    set_level(model, Level.QDQ)
    assert ModelState.of(model).level is level_of(model) is Level.QDQ
