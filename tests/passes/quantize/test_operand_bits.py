"""Bits of what products and maxima of encrypted values read: chosen by what the outputs lose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_fhe.analysis.outputs.divergence import output_error, outputs
from onnx_fhe.analysis.regions.region_analysis import find_regions
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.passes.quantize import operands
from onnx_fhe.passes.quantize.quantize import Quantize
from onnx_fhe.testing import pipelines


def gated(op: str = "Mul"):
    """Two dense layers whose results meet element by element, and a layer behind."""
    random = np.random.default_rng(0)
    weights = {f"w{i}": random.normal(size=(6, 5)).astype(np.float32) / 2 for i in range(2)}
    weights["last"] = random.normal(size=(3, 6)).astype(np.float32)
    model = pipelines.model(
        "(float[N,5] x) => (float[N,3] y) { a = Gemm<transB = 1>(x, w0) b = Gemm<transB = 1>(x, w1)"
        f" t = Tanh(a) s = Sigmoid(b) p = {op}(t, s) y = Gemm<transB = 1>(p, last) }}",
        **weights,
    )
    return model, {"x": random.normal(size=(300, 5)).astype(np.float32)}


def quantized(model, data, text: str):
    context = Context(calibration=data)
    result = PassManager.parse(text).run(model, context)
    return output_error(outputs(result.model, data), outputs(model, data)), result.context.notes


def test_a_product_gets_the_bits_that_its_outputs_need():
    model, data = gated()
    few, _ = quantized(model, data, "quantize{weights=6 activations=8 operands=4}")
    auto, notes = quantized(model, data, "quantize{weights=6 activations=8 tolerance=0.001}")
    assert auto < 0.6 * few
    (note,) = [n for n in notes if "products and maxima" in n]
    assert "bits rather than 4" in note
    assert f"{few:.2%}" in note


def test_a_product_that_is_good_enough_keeps_the_cheapest_tables():
    model, data = gated()
    loose, notes = quantized(model, data, "quantize{weights=6 activations=8 tolerance=0.5}")
    few, _ = quantized(model, data, "quantize{weights=6 activations=8 operands=4}")
    assert loose == few
    assert not any("products and maxima" in n for n in notes)


def test_very_many_of_them_keep_the_cheapest_tables(monkeypatch):
    monkeypatch.setattr(operands, "AFFORDABLE_OPERATIONS", 0.0)
    model, data = gated()
    auto, _ = quantized(model, data, "quantize{weights=6 activations=8}")
    few, _ = quantized(model, data, "quantize{weights=6 activations=8 operands=4}")
    assert auto == few


@pytest.mark.parametrize("op", ["Mul", "Max"])
def test_the_price_counts_every_lookup(op):
    model, _ = gated(op)
    regions = find_regions(model)
    assert operands._price(regions, 6) > 2 * operands._price(regions, 4) > 0


def test_the_text_form_keeps_what_was_asked():
    assert replace(Quantize(), operands=5).to_text() == "quantize{operands=5}"
    assert Quantize().to_text() == "quantize"
