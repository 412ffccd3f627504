"""Results that are shared: errors that nobody meets, and nothing that depends on noise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnx_fhe
from onnx_fhe.analysis.noise.noise import noise_steps
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.ir.errors import LimitError, PipelineError, UserError
from onnx_fhe.ir.ops import RoundBits
from onnx_fhe.ir.results import SHARED_P_ERROR, SHARED_P_ERRORS
from onnx_fhe.sharing import lowered

ROUNDED = "quantize{weights=3 activations=3 inputs=4},lower-to-integer,fuse-tlu,insert-rounding{bits=3}"


@pytest.fixture
def network(zoo, tmp_path):
    path = tmp_path / "mlp.onnx"
    onnx.save(zoo.mlp(), path)

    def compiled(pipeline=ROUNDED, **options):
        given = {"check_samples": 0, "accept_loss": True, "backend": "reference"} | options
        return onnx_fhe.compile(path, zoo.samples(zoo.mlp()), pipeline, **given)

    return compiled


@pytest.mark.parametrize("pipeline", [ROUNDED, "balanced"])
def test_rounding_is_exact_and_no_error_is_met(network, pipeline, tmp_path):
    program = network(pipeline, results="shared")
    assert all(r.is_exact for r in RoundBits.all_in(program.integer_model) if r.lsbs_to_remove)
    assert program.manifest.p_error == 2.0**-128
    program.save(tmp_path / "m.fhe")
    assert onnx_fhe.Program.load(tmp_path / "m.fhe").manifest.results == "shared"


def test_the_default_is_the_owner_alone_and_rounds_approximately(network):
    program = network()
    assert program.manifest.results == "owner"
    rounds = [r for r in RoundBits.all_in(program.integer_model) if r.lsbs_to_remove]
    assert rounds
    assert not any(r.is_exact for r in rounds)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (
            {"pipeline": ROUNDED.replace("bits=3}", "bits=3 mode=approximate}")},
            PipelineError,
            "leave mode out",
        ),
        ({"pipeline": ROUNDED + ",set-p-error{p-error=1e-6}"}, PipelineError, "leave set-p-error out"),
        ({"p_error": 1e-9}, UserError, "leave p_error out"),
        ({"results": "everybody"}, UserError, "owner or shared"),
    ],
)
def test_what_contradicts_is_refused(network, options, kind, said):
    with pytest.raises(kind) as caught:
        network(**({"results": "shared"} | options))
    assert said in str(caught.value)


def test_a_model_that_rounds_approximately_is_refused(network, zoo):
    done = network().integer_model
    with pytest.raises(PipelineError, match="must not depend on noise"):
        onnx_fhe.compile(done, zoo.samples(zoo.mlp()), "analyze-bit-widths", "reference", results="shared")


class Choosy:
    """A backend that finds parameters for few errors."""

    def __init__(self, smallest):
        self.smallest, self.asked = smallest, []

    def lower(self, model, options):
        self.asked.append(options.p_error)
        if options.p_error < self.smallest:
            raise LimitError("no parameters", found=f"{options.p_error}")
        return options.p_error


def test_the_smallest_error_with_parameters_is_taken_and_told(network):
    model = network(results="shared").integer_model
    wanted = LowerOptions(p_error=SHARED_P_ERROR)
    choosy = Choosy(2.0**-100)
    circuit, options, notes = lowered(choosy, model, wanted, "shared")
    assert circuit == options.p_error == 2.0**-96
    assert "2^-96" in notes[0]
    assert lowered(Choosy(0.0), model, wanted, "shared") == (SHARED_P_ERROR, wanted, [])


def test_where_there_are_none_the_first_refusal_is_told(network):
    model = network(results="shared").integer_model
    choosy = Choosy(1.0)
    with pytest.raises(LimitError) as caught:
        lowered(choosy, model, LowerOptions(p_error=SHARED_P_ERROR), "shared")
    assert caught.value.found == f"{SHARED_P_ERROR}"
    assert tuple(choosy.asked) == SHARED_P_ERRORS


def test_an_error_that_was_asked_for_is_the_only_one_tried(network):
    model = network(results="shared").integer_model
    choosy = Choosy(1.0)
    with pytest.raises(LimitError):
        lowered(choosy, model, replace(LowerOptions(), p_error=2.0**-130), "shared")
    assert len(choosy.asked) == 1


def test_noise_is_known_for_errors_that_nobody_meets():
    # 13.0 standard deviations to each side leave 2^-128.
    assert noise_steps(SHARED_P_ERROR) == pytest.approx(0.5 / 13.06, rel=0.01)
    steps = [noise_steps(p) for p in np.logspace(-39, -2, 60)]
    assert all(math.isfinite(s) for s in steps)
    assert steps == sorted(steps)
