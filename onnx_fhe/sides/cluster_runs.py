"""Encrypted runs of a program whose samples are evaluated on a Dask cluster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..backends.sides import Progress
from ..evaluations import Evaluations
from ..ir.batch_runner import Arrays
from ..running import Stopwatch
from .bundle import Bundle
from .client import Client
from .dask_evaluator import DaskEvaluator
from .headers import ClientHeader, ServerHeader


class ClusterRuns:
    """A program in halves: the client's stays here with the keys, the server's goes to the workers.

    Args:
        client, server: The halves.
    """

    def __init__(self, client: Bundle[ClientHeader], server: Bundle[ServerHeader]) -> None:
        self._client, self._half = Client(client), server.to_bytes()
        self._keyed: set[str] = set()

    def run(
        self,
        values: Mapping[str, np.ndarray],
        timed: Stopwatch,
        progress: Progress,
        batch: int,
        address: str,
    ) -> tuple[Arrays, Evaluations]:
        """Encrypt here, evaluate there, and decrypt here.

        Args:
            values: Integers by Encrypt output name, samples on axis 0.
            timed: Gets ``prepare``, ``keygen``, ``encrypt``, ``evaluate`` and ``decrypt``, in seconds.
            progress: Called with (what, done, total).
            batch: Samples of one call.
            address: Address of the scheduler.

        Raises:
            ArtifactError: The program has no circuit for so many samples a call.
            UserError: There is no cluster, or it loses all its workers.
        """
        parameters = self._client.header.circuit(batch).parameters
        with timed("prepare"):
            evaluator = DaskEvaluator(address, self._half)
        with evaluator:
            with timed("keygen"):
                if parameters not in self._keyed:
                    progress("make keys", 0, 1)
                    self._client.keygen(batch)
                    self._keyed.add(parameters)
                    progress("make keys", 1, 1)
            with timed("encrypt"):
                asked = self._client.encrypt_quantized(values, batch, progress)
            with timed("evaluate"):
                results = evaluator.evaluate(asked, self._client.evaluation_keys(batch), progress)
            evaluations = evaluator.evaluations
        assert evaluations is not None
        with timed("decrypt"):
            return self._client.decrypt_quantized(results, asked, progress), evaluations
