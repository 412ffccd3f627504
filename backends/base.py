"""The interface of a backend, which lowers an integer-level model, and of the circuit that it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..ir.batch_runner import Arrays
from ..ir.errors import UnsupportedError, UserError
from ..ir.limits import TargetLimits
from ..ir.p_error import DEFAULT_P_ERROR
from .sides import Ciphertexts, Progress, Sides, quiet
from .statistics import CircuitStatistics, ParameterStrategy


@dataclass(frozen=True)
class LowerOptions:
    """How a circuit is made; a backend heeds what means something to it.

    Attributes:
        p_error: Tolerated error of one table lookup; ``None`` to give only ``global_p_error``.
        global_p_error: Tolerated error of the whole circuit.
        security_level: Bits of security.
        parameter_strategy: ``mono`` is one parameter set for the circuit, ``multi`` one for each precision,
            ``multi-norm2`` one for each precision and weight norm (larger keys);
            ``auto`` takes the cheapest, and ``multi-norm2`` only where it saves more than a twentieth.
        compress_keys: Evaluation keys about four times smaller to send, and no slower to use.
        compress_inputs: Encrypted inputs as seeds and one number each, hundreds of times smaller to send.
        loop_parallelize: Use all cores for one sample.
        seed: Seeds what the backend draws at random in the clear. Keys and encryption never use it.
        progress: Called with (what, done, total).
    """

    p_error: float | None = DEFAULT_P_ERROR
    global_p_error: float | None = None
    security_level: int = 128
    parameter_strategy: ParameterStrategy = "auto"
    compress_keys: bool = True
    compress_inputs: bool = True
    loop_parallelize: bool = True
    seed: int = 0
    progress: Progress = quiet

    def __post_init__(self) -> None:
        given = [p for p in (self.p_error, self.global_p_error) if p is not None]
        if not given or not all(0 < p < 1 for p in given):
            raise UserError(
                "this error rate makes no circuit",
                found=f"p_error {self.p_error}, global_p_error {self.global_p_error}",
                allowed="at least one of them, between 0 and 1",
            )


DEFAULTS = LowerOptions()
"""How a circuit is made where the caller asks for nothing else."""


class EncryptedSession(ABC):
    """One client and one server in this process; the caller times each step.

    Values and ciphertexts are those of ``batch`` samples: arrays have a first axis of so many.

    Attributes:
        batch: Samples of one call.
    """

    batch: int = 1

    @abstractmethod
    def keygen(self) -> None:
        """Make the secret and the evaluation keys, fresh ones every time."""

    @abstractmethod
    def encrypt(self, values: Mapping[str, np.ndarray]) -> Ciphertexts:
        """Encrypt the samples of one call.

        Raises:
            DataError: A name, shape or value that the circuit was not made for.
        """

    @abstractmethod
    def evaluate(self, ciphertexts: Ciphertexts) -> Ciphertexts:
        """The server's work: it needs the evaluation keys and no secret key."""

    def evaluate_alone(self, ciphertexts: Ciphertexts) -> Ciphertexts:
        """``evaluate`` on the calling thread only, so that several threads may do so at the same time.

        The first call of a session must have returned before others begin: it makes the keys ready for use.
        """
        return self.evaluate(ciphertexts)

    @abstractmethod
    def decrypt(self, ciphertexts: Ciphertexts) -> Arrays:
        """Decrypt what ``evaluate`` returned: int64 arrays by output name."""

    @abstractmethod
    def evaluation_keys(self) -> bytes:
        """The keys that a server needs; they hold no secret key."""


class Circuit(ABC):
    """A lowered server part.

    ``values`` are integers (of any dtype) by Encrypt output name, samples on axis 0; results are int64
    by Decrypt output name.
    """

    @abstractmethod
    def clear(self, values: Mapping[str, np.ndarray]) -> Arrays:
        """The circuit's own evaluation in the clear, without noise; what is out of range wraps."""

    @abstractmethod
    def simulate(self, values: Mapping[str, np.ndarray]) -> Arrays:
        """The circuit in the clear with the errors that encryption would bring."""

    @abstractmethod
    def statistics(self) -> CircuitStatistics:
        """What one sample costs."""

    def recorded(self) -> tuple[CircuitStatistics, LowerOptions] | None:
        """What its files say of it, which a manifest must say too; None where they say nothing."""
        return None

    def current(self) -> Circuit:
        """This circuit as it runs here.

        One from a file is held against its integer model, and made anew where another version wrote it.

        Raises:
            ArtifactError: It is the circuit of another model.
        """
        return self

    def of(self, batch: int) -> Circuit:
        """This circuit for so many samples a call, made anew; its statistics are those of a call.

        Raises:
            UnsupportedError: Samples of this network cannot be computed together, or the backend keeps no
                such circuits.
        """
        raise UnsupportedError(
            "circuits of this backend are kept for one sample a call only",
            found=str(batch),
            allowed="1",
            do="leave --batch out",
        )

    @abstractmethod
    def session(self, batch: int = 1) -> EncryptedSession:
        """A client and a server.

        Args:
            batch: Samples that the server takes in one call. What is done once a call is then done for all of
                them, and loops over cores have more to share out.

        Raises:
            UnsupportedError: This circuit takes one sample at a time.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the circuit into ``folder``: ``server/`` for the server, ``client/`` for the client.

        Raises:
            OutputError: The folder cannot be written.
        """


class Backend(ABC):
    """A target that circuits are made for."""

    name: ClassVar[str]

    @abstractmethod
    def limits(self) -> TargetLimits:
        """What the target takes."""

    @abstractmethod
    def lower(self, model: ir.Model, options: LowerOptions = DEFAULTS) -> Circuit:
        """Make a circuit of an integer-level model (the whole model; its server part is what is lowered).

        Raises:
            UnsupportedError: An operator that the target does not have.
            LimitError: The target takes no circuit of this width.
            VerificationError: The model breaks a rule of the integer level.
        """

    @abstractmethod
    def load(self, folder: Path, model: ir.Model | None = None) -> Circuit:
        """Read what ``Circuit.save`` wrote.

        Args:
            folder: The folder.
            model: The integer-level model; without it the circuit may only be able to run encrypted.

        Raises:
            ArtifactError: The folder holds no circuit of this backend, or one that does not fit this version.
        """

    def sides(self) -> Sides | None:
        """How client and server of its circuits are made, each alone; None where there are no two sides."""
        return None
