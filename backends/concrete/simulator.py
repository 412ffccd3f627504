"""Simulation, sample after sample: what Concrete makes anew for each of them is made once.

``Client.simulate_encrypt`` and ``Server.run`` write the description of the program as JSON and read it again,
and load the program, for every sample; that takes ten times as long as the simulation of a small circuit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from concrete import compiler

from . import signals


class Simulator:
    """A circuit that was compiled to be simulated.

    Args:
        server: Concrete's server, with one function.
    """

    def __init__(self, server: Any) -> None:
        information = server.program_info
        (function,) = information.get_circuits()
        name = function.get_name()
        # Kept: what is made of a program does not hold it.
        self._kept = (
            server,
            compiler.ClientProgram.create_simulated(information),
            compiler.ServerProgram(server._library, True),
        )
        self._client = self._kept[1].get_client_circuit(name)
        self._server = self._kept[2].get_server_circuit(name)

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
