"""What was measured on a machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..analysis.cost.parameters import BootstrapParameters, KeyswitchParameters
from ..analysis.cost.timing import Measured, Timings

FORMAT = 1
"""Version of the file."""


@dataclass(frozen=True)
class Profile:
    """Times and memory of one machine.

    Attributes:
        processor: Its name.
        cores: Processor cores that were usable.
        source: ``default`` came with onnx-fhe and is of some other machine; ``measured`` was measured.
        date: Of the measurement (UTC, ISO).
        packages: Versions of what computed.
        measured: Parameter sets and milliseconds of one bootstrap, on one core.
        nanoseconds_per_product: Of one coefficient of a ciphertext times a constant, on one core.
        call_seconds: Of a call of a circuit besides its bootstraps.
        keygen_seconds, keygen_seconds_per_byte: Of making keys, the second for each byte of them as used.
        loop_efficiency: Share of all cores' time that one sample uses when its loops run on all of them.
        job_efficiency: The same where each core computes a sample of its own.
        compile_seconds, compile_seconds_per_node: Of making a circuit, the second for each node of its graph.
        memory_bytes, memory_per_key_byte: Of a process that computes, the second for each byte of its keys.
        format: Version of the file.
    """

    processor: str
    cores: int
    source: Literal["default", "measured"]
    date: str
    packages: dict[str, str]
    measured: tuple[Measured, ...]
    nanoseconds_per_product: float
    call_seconds: float
    keygen_seconds: float
    keygen_seconds_per_byte: float
    loop_efficiency: float
    job_efficiency: float
    compile_seconds: float
    compile_seconds_per_node: float
    memory_bytes: float
    memory_per_key_byte: float
    format: int = FORMAT

    @cached_property
    def timings(self) -> Timings:
        """What passes need of it."""
        return Timings(self.measured, self.nanoseconds_per_product, self.call_seconds)

    def milliseconds(
        self, of: BootstrapParameters | float, keyswitch: KeyswitchParameters | None = None
    ) -> float:
        """Time of one bootstrap on one core.

        Args:
            of: Its parameters, or Concrete's complexity (operations) where only that is known.
            keyswitch: Parameters of the key switch in front of it.
        """
        if isinstance(of, BootstrapParameters):
            return self.timings.milliseconds(of, keyswitch)
        return self.timings.of_complexity(of)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Read a profile that ``save`` wrote, of this or another machine.

        Raises:
            DataError: It is no profile, or of a newer format.
        """
        from .storage import read_profile

        return read_profile(path)

    @classmethod
    def default(cls) -> Profile:
        """The one that came with onnx-fhe."""
        from .storage import shipped

        return shipped()

    @classmethod
    def here(cls) -> Profile:
        """What was measured on this machine, or else the default."""
        from .storage import this_machine

        return this_machine()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it in one step.

        Raises:
            OutputError: ``path`` cannot be written.
        """
        from .storage import write_profile

        write_profile(self, path)

    def describe(self) -> str:
        """One line about where the numbers come from."""
        if self.source == "default":
            return (
                f"the default profile of onnx-fhe ({self.processor}); "
                "`onnx-fhe calibrate-cost` measures this machine"
            )
        return f"measured on {self.processor}, {self.cores} cores, {self.date[:10]}"
