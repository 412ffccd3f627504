"""``set-p-error``: recording, searching, and what becomes of it in a circuit."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir import load
from onnx_fhe.ir.errors import DataError, PipelineError, VerificationError
from onnx_fhe.ir.ops import TableLookup
from onnx_fhe.ir.p_error import notes, recorded, tolerated
from onnx_fhe.ir.save import save
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.framework.pipeline import parse_passes

HEAD = "normalize,quantize{weights=3},lower-to-integer,fuse-tlu,insert-rounding{bits=4}"


@pytest.fixture(scope="module")
def integer(digits_mlp):
    context = Context(calibration={k: v[:200] for k, v in digits_mlp.calibration_data.items()})
    return PassManager.parse(HEAD).run(load.load(digits_mlp.model), context).model


def run(model, text, digits_mlp=None, **settings):
    data = None if digits_mlp is None else {k: v[:200] for k, v in digits_mlp.calibration_data.items()}
    return PassManager.parse(text).run(model.clone(), Context(calibration=data, **settings))


def test_every_lookup_says_it_and_the_file_keeps_it(integer, tmp_path):
    result = run(integer, "set-p-error{p-error=0.01}")
    assert result.modified
    assert set(recorded(result.model).values()) == {0.01}
    save(result.model, tmp_path / "m.onnx")
    assert recorded(load.load(tmp_path / "m.onnx")) == recorded(result.model)
    assert tolerated(result.model, 1e-5, None) == (0.01, None)
    assert not notes(result.model)
    assert not run(result.model, "set-p-error{p-error=0.01}").modified


def test_single_layers_and_the_smallest_counts(integer):
    model = run(integer, "set-p-error{layers={/0/Gemm=0.02}}").model
    assert list(recorded(model).values()) == [0.02]
    assert tolerated(model, 1e-4, None) == (1e-4, None)
    assert "the smallest" in notes(model)[0]
    model = run(model, "set-p-error{p-error=0.05 layers={/0/Gemm=0.02}}").model
    assert sorted(recorded(model).values()) == [0.02, 0.05]
    assert tolerated(model, None, None, 1e-5) == (0.02, None)


def test_for_the_whole_circuit(integer):
    model = run(integer, "set-p-error{global-p-error=0.1}").model
    assert tolerated(model, None, None, 1e-5) == (None, 0.1)
    assert tolerated(model, 1e-3, 0.5, 1e-5) == (1e-3, 0.1)


def test_a_larger_error_is_cheaper_by_the_cost_model(integer):
    costs = [
        estimate(run(integer, f"set-p-error{{p-error={p}}}").model).complexity for p in (1e-6, 1e-3, 0.1)
    ]
    assert costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("set-p-error", "nothing is asked for"),
        ("set-p-error{p-error=0.0}", "no probability"),
        ("set-p-error{layers={/0/Gemm=1.5}}", "no probability"),
        ("set-p-error{layers={/9/Gemm=0.1}}", "no table behind"),
        ("set-p-error{search=true p-error=0.1}", "not both"),
    ],
)
def test_refusals(integer, text, what):
    with pytest.raises(PipelineError) as raised:
        run(integer, text)
    assert what in raised.value.what
    assert raised.value.where.pass_name == "set-p-error"


def test_the_search_needs_data(integer):
    with pytest.raises(DataError):
        run(integer, "set-p-error{search=true}")


def test_a_file_with_an_impossible_error_is_refused(integer):
    model = integer.clone()
    TableLookup.all_in(model)[0].set_p_error(1.5)
    with pytest.raises(VerificationError):
        verify(model)


@pytest.mark.parametrize("measure", ["predictions", "output-error"])
def test_a_larger_tolerance_finds_a_larger_error(integer, digits_mlp, measure):
    found = []
    for tolerance in (0.0, 0.02, 1.0):
        text = f"set-p-error{{search=true tolerance={tolerance} measure={measure}}}"
        result = run(integer, text, digits_mlp)
        (value,) = set(recorded(result.model).values())
        found.append(value)
        assert "lookups may go wrong" in result.context.notes[-1]
    assert 1e-5 <= found[0] <= found[1] <= found[2] == 0.2
    assert found[0] < 0.2
    again = run(integer, "set-p-error{search=true tolerance=0.0}", digits_mlp)
    assert 1e-5 <= next(iter(recorded(again.model).values())) < 0.2


def test_its_text():
    text = "set-p-error{p-error=0.01 layers={/0/Gemm=0.001}}"
    (parsed,) = parse_passes(text)
    assert parsed.to_text() == text


def test_the_circuit_is_made_with_it_and_the_artifact_says_so(integer, digits_mlp, tmp_path):
    model = run(integer, "set-p-error{p-error=0.01}").model
    plain = get_backend("concrete").lower(integer).statistics()
    data = {k: v[:20] for k, v in digits_mlp.calibration_data.items()}
    program = onnx_fhe.compile(model, data, "analyze-bit-widths", check_samples=2)
    assert program.manifest.p_error == 0.01
    assert 1e-4 < program.statistics.p_error <= 0.01
    assert program.statistics.complexity < 0.95 * plain.complexity
    program.save(tmp_path / "p.fhe")
    again = onnx_fhe.Program.load(tmp_path / "p.fhe")
    assert again.manifest.p_error == 0.01
    assert recorded(again.integer_model) == recorded(model)
    assert np.array_equal(*(next(iter(p.run(data).outputs.values())) for p in (program, again)))
