"""A program that a service computes: used as a ``Program`` is, with keys that stay here."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..backends.sides import Progress, quiet
from ..clipping import ClipReport
from ..input_coercion import DataLike, as_data
from ..ir.batch_runner import Arrays
from ..ir.errors import ArtifactError, DataError, ServiceError, UserError
from ..ir.matching import arrays_for
from ..running import Stopwatch, joined
from .ciphertexts import Ciphertexts, EncryptedResults
from .client import Client
from .http import Connection
from .keys import EvaluationKeys, secret_file

REQUEST_SAMPLES = 32
"""Samples of one request: enough that the way there and back counts for little."""
IN_FLIGHT = 2
"""Requests at the same time: while one is computed, the next is encrypted and sent."""


@dataclass(frozen=True)
class RemoteResult:
    """What a service computed.

    Attributes:
        samples: How many samples ran.
        outputs: Arrays by output name, as the original model gives them.
        clip: Input values outside the calibrated range, clipped before encryption.
        seconds: Seconds of each step, for all samples: ``upload`` (keys), ``encrypt``, ``decrypt`` and
            ``wait`` (for the service, while nothing else was to be done).
        warnings: What the user should be told.
    """

    samples: int
    outputs: Arrays
    clip: ClipReport
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def clipped(self) -> int:
        """Number of input values that were clipped to the calibrated range."""
        return self.clip.values


class RemoteProgram:
    """A network that a service computes on encrypted data; the keys never leave this side.

    Args:
        url: Address of the service, such as ``https://example.org:8080``.
        client: The client half; None: the service is asked for it.
        keys: Folder of the secret keys, which are made where there are none; None: this object has its own.
        token: What the service knows this client by.
        model: Name of the model; None: the one whose circuit the client half has.
        batch: Samples of one call of the circuit, where there is a circuit for so many.
        certificate: File of the certificates that are believed, besides those of the system.
        patience: Seconds for which a request is tried again where the service is busy or away.
        transport: What carries requests, for tests.

    Raises:
        UserError: The address is none, or there is no such model.
        ArtifactError: The client half or the secret keys cannot be read.
        ServiceError: The service refuses, or cannot be reached.
    """

    def __init__(
        self,
        url: str,
        client: str | os.PathLike[str] | None = None,
        keys: str | os.PathLike[str] | None = None,
        token: str | None = None,
        model: str | None = None,
        *,
        batch: int = 1,
        certificate: str | None = None,
        patience: float = 120.0,
        transport: Any = None,
    ) -> None:
        self._connection = Connection(url, token, certificate, patience, transport)
        self._has_token, self._batch = token is not None, batch
        models = self._connection.ask("GET", "/models").json()
        if client is None:
            self.model = _only(models, model)
            self.client = Client.load(self._connection.ask("GET", f"/models/{self.model}/client").content)
        else:
            self.client = Client.load(client)
        entry = self.client.header.circuit(batch)
        self.model, self._most = _fitting(models, entry.id, model)
        self._prepare_keys(keys, entry.parameters)

    def run(
        self,
        data: DataLike,
        limit: int | None = None,
        progress: Progress = quiet,
        samples: int = REQUEST_SAMPLES,
    ) -> RemoteResult:
        """Encrypt samples, have them computed, and decrypt the results.

        Args:
            data: Arrays by input name, samples on axis 0; or a single array, an .npz file, what ``load_data``
                returned.
            limit: Run the first so many samples only.
            progress: Called with (what, done, total).
            samples: Samples of one request.

        Raises:
            DataError: A name, shape, type or value does not fit the network; or results are not those of what
                was sent.
            ServiceError: The service refuses, or is away or busy for too long.
            UserError: The limit leaves no samples.
        """
        if (limit is not None and limit < 1) or samples < 1:
            raise UserError(
                "this leaves no samples", found=f"{limit}, {samples} a request", allowed="1 or more"
            )
        arrays = {k: v[:limit] for k, v in arrays_for(self.client.inputs, as_data(data)).items()}
        total = len(next(iter(arrays.values())))
        size = max(min(samples, self._most) // self._batch, 1) * self._batch
        timed = Stopwatch()
        with timed("upload"):
            self.upload_keys()
        outputs: list[Arrays] = []
        clips: list[tuple[int, int]] = []
        waiting: deque[tuple[Arrays, Ciphertexts, Future[EncryptedResults]]] = deque()

        def receive() -> None:
            part, asked, future = waiting.popleft()
            with timed("wait"):
                results = future.result()
            with timed("decrypt"):
                outputs.append(self.client.decrypt(results, part, asked))
            progress("evaluate", sum(len(next(iter(o.values()))) for o in outputs), total)

        progress("evaluate", 0, total)
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            for first in range(0, total, size):
                part = {k: v[first : first + size] for k, v in arrays.items()}
                with timed("encrypt"):
                    asked = self.client.encrypt(part, self._batch)
                clips.append((self.client.clip.values, self.client.clip.samples))
                waiting.append((part, asked, threads.submit(self._evaluate, asked)))
                if len(waiting) == IN_FLIGHT:
                    receive()
            while waiting:
                receive()
        clip = ClipReport(sum(values for values, _ in clips), sum(clipped for _, clipped in clips))
        return RemoteResult(total, joined(outputs), clip, timed.seconds, self._warnings(clip))

    def upload_keys(self) -> None:
        """Give the service the evaluation keys, where it lacks them.

        Raises:
            ServiceError: It does not take them.
        """
        try:
            self._connection.ask("HEAD", f"/keys/{self._id}")
        except ServiceError:
            keys = self.client.evaluation_keys(self._batch)
            self._connection.ask("PUT", f"/keys/{keys.id}", keys.to_bytes())

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def _evaluate(self, asked: Ciphertexts) -> EncryptedResults:
        """One request; once, lost keys are uploaded again, and damaged results asked for again."""
        body = asked.to_bytes()
        for last in (False, True):
            try:
                answer = self._connection.ask("POST", f"/models/{self.model}/evaluate", body)
                return EncryptedResults.load(answer.content)
            except ServiceError as error:
                if last or error.code != "unknown-keys":
                    raise
                self.upload_keys()
            except ArtifactError as error:
                if last:
                    raise DataError(
                        "the results were damaged on their way, twice", found=error.what
                    ) from error
        raise AssertionError

    def _prepare_keys(self, folder: str | os.PathLike[str] | None, parameters: str) -> None:
        made: EvaluationKeys
        if folder is not None and secret_file(folder, parameters).exists():
            self.client.load_keys(folder, self._batch)
            made = self.client.evaluation_keys(self._batch)
        else:
            made = self.client.keygen(self._batch)
            if folder is not None:
                self.client.save_keys(folder)
        self._id = made.id

    def _warnings(self, clip: ClipReport) -> tuple[str, ...]:
        told = []
        if clip.values:
            told.append(
                f"{clip.values} input values in {clip.samples} samples are outside the calibrated range; they"
                " were clipped to it"
            )
        if self._has_token and self._connection.is_open:
            told.append(
                "the token went over plain HTTP, where others may read it: use an address of https://"
            )
        return tuple(told)


def _only(models: list[Mapping[str, Any]], name: str | None) -> str:
    """The model that is meant where there is no client half."""
    names = [str(m["name"]) for m in models]
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        raise UserError(
            "it is not clear which model of the service is meant"
            if name is None
            else "there is no such model",
            found=name or "",
            allowed=", ".join(names),
            do="name one of them",
        )
    return name


def _fitting(models: list[Mapping[str, Any]], circuit: str, name: str | None) -> tuple[str, int]:
    """The name of the model that has a circuit, and the samples that a request may hold."""
    for model in models:
        if name in (None, model["name"]) and any(c["id"] == circuit for c in model["circuits"]):
            return str(model["name"]), int(model["limits"]["samples"])
    raise UserError(
        "the service has no circuit that belongs to this client half",
        found=circuit[:16],
        allowed=", ".join(f"{m['name']} ({c['id'][:16]})" for m in models for c in m["circuits"]),
        do="use the client half that was split from the same circuit as the service's server half",
    )
