"""Simulation of many samples: what Concrete makes of a program is made once, and samples stay apart."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from concrete import compiler

from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.concrete import simulator
from onnx_fhe.backends.concrete.backend import ConcreteBackend
from onnx_fhe.testing.integers import IntegerBuilder


def test_samples_of_two_inputs_and_two_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    b = IntegerBuilder(0, samples=12)
    x, y = b.encrypt("x", (2,), 0, 3), b.encrypt("y", (2,), -4, 3)
    total = b.op("Add", x, y)
    b.decrypt(b.lookup(total, np.arange(11)[None] % 5, np.array([-4])), "z", 0, 4)
    b.decrypt(total, "s", -4, 6)
    made: list[str] = []

    def once(name: str) -> object:
        real = getattr(compiler, name)

        def make(*arguments: object) -> object:
            made.append(name)
            return real(*arguments)

        return make

    programs = SimpleNamespace(create_simulated=compiler.ClientProgram.create_simulated)
    monkeypatch.setattr(
        simulator,
        "compiler",
        SimpleNamespace(ClientProgram=programs, ServerProgram=once("ServerProgram"), Value=compiler.Value),
    )
    circuit = ConcreteBackend().lower(b.model(), LowerOptions(p_error=1e-9))
    found, wanted = circuit.simulate(b.samples), b.expected()
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    assert made == ["ServerProgram"]
    np.testing.assert_array_equal(circuit.simulate(b.samples)["z"], wanted["z"])
    assert made == ["ServerProgram"], "another call makes no other"
