"""What ``compile`` does where the circuit of a preset strays from the network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnx_fhe import compiling, mending
from onnx_fhe.compiling import compile_model
from onnx_fhe.ir.errors import LimitError
from onnx_fhe.passes.framework.presets import PRESETS
from onnx_fhe.passes.framework.registry import find_pass
from onnx_fhe.testing import random_network


@pytest.fixture(scope="module")
def strays():
    """A network for which the usual weights are too coarse."""
    return random_network(70036, longest=3)


def saved(network, folder):
    onnx.save(network.model, folder / "network.onnx")
    return folder / "network.onnx"


def notes_of(program) -> list[str]:
    return [n for n in program.manifest.notes if n.startswith("balanced:")]


def test_a_circuit_that_strays_is_mended_and_the_note_says_how(strays, tmp_path):
    text = PRESETS["balanced"].text
    plain = compile_model(saved(strays, tmp_path), strays.calibration, text, "reference", accept_loss=True)
    program = compile_model(saved(strays, tmp_path), strays.calibration, "balanced", "reference")
    assert plain.manifest.fidelity.verdict != "good"
    assert program.manifest.fidelity.verdict == "good"
    (note,) = notes_of(program)
    assert "rather than" in note
    assert "times the operations" in note
    assert program.manifest.pipeline != plain.manifest.pipeline
    # What the manifest says makes the same circuit.
    again = compile_model(saved(strays, tmp_path), strays.calibration, program.manifest.pipeline, "reference")
    results = (next(iter(p.run(strays.test).outputs.values())) for p in (program, again))
    np.testing.assert_array_equal(*results)


def test_a_circuit_that_follows_its_network_is_tried_once(monkeypatch, tmp_path):
    network, runs = random_network(2, longest=1), []
    run = compiling.PassManager.run
    monkeypatch.setattr(compiling.PassManager, "run", lambda *a, **k: runs.append(a) or run(*a, **k))
    program = compile_model(saved(network, tmp_path), network.calibration, "balanced", "reference")
    assert program.manifest.fidelity.verdict == "good"
    assert len(runs) == 1
    assert not notes_of(program)


def test_mends_are_options_of_the_preset_s_own_passes():
    for preset in PRESETS.values():
        names = [part.split("{")[0] for part in preset.text.split(",")]
        for mend in preset.mends:
            for name, options in mend.options.items():
                assert name in names
                find_pass(name).cls(**options)


def test_a_mend_that_cannot_be_made_is_passed_over(strays, monkeypatch, tmp_path):
    """Larger weights may leave sums that float32 does not hold: the preset's own circuit is there still."""
    run, done = compiling.PassManager.run, []

    def failing(self, *arguments, **options):
        done.append(self)
        if len(done) > 1:
            raise LimitError("a value of the encrypted part may be too large to be exact")
        return run(self, *arguments, **options)

    monkeypatch.setattr(compiling.PassManager, "run", failing)
    program = compile_model(
        saved(strays, tmp_path), strays.calibration, "balanced", "reference", accept_loss=True
    )
    assert len(done) > 1
    assert not notes_of(program)
    assert program.manifest.fidelity.verdict != "good"


def test_a_value_that_is_not_followed_at_all_strays():
    def fidelity(r2):
        return SimpleNamespace(classes=None, worst=SimpleNamespace(r2=r2), verdict="good")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mending, "_left", lambda _: 1.0)
        assert [mending._strays(fidelity(r2)) for r2 in (0.99, 0.9, 0.0, None)] == [False, True, True, False]
