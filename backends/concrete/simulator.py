"""Simulation, sample after sample: what Concrete makes anew for each of them is made once.

``Client.simulate_encrypt`` and ``Server.run`` write the description of the program as JSON and read it again,
and load the program, for every sample; that takes ten times as long as the simulation of a small circuit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from concrete import compiler

from ..concrete_runtime import signals
from ..concrete_runtime.library import Compiled


class Simulator:
    """A circuit that was compiled to be simulated.

    Args:
        compiled: The program.
    """

    def __init__(self, compiled: Compiled) -> None:
        # Kept: what is made of a program does not hold it.
        self._kept = (
            compiled,
            compiler.ClientProgram.create_simulated(compiled.information),
            compiler.ServerProgram(compiled.library, True),
        )
        self._client = self._kept[1].get_client_circuit(compiled.function)
        self._server = self._kept[2].get_server_circuit(compiled.function)

    def __call__(self, sample: list[np.ndarray]) -> list[Any]:
        """What a client would decrypt, for integers (int64) of the shapes that the circuit takes."""
        given = [
            self._client.simulate_prepare_input(compiler.Value(array), place)
            for place, array in enumerate(sample)
        ]
        with signals.kept():
            results = self._server.simulate(given)
        return [
            self._client.simulate_process_output(result, place).to_py_val()
            for place, result in enumerate(results)
        ]
