"""What was measured on a machine, and the files it is kept in: shipped, in the user's cache, anywhere."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ..analysis import cost
from ..analysis.cost.parameters import BootstrapParameters, KeyswitchParameters
from ..analysis.cost.timing import DEFAULT, Measured, Timings
from ..ir.errors import DataError, OutputError
from ..ir.paths import write_bytes

FORMAT = 1
"""Version of the file."""
_DO = "write one with `onnx-fhe calibrate-cost -o FILE`"


@dataclass(frozen=True)
class Profile:
    """Times and memory of one machine.

    Attributes:
        processor: Its name.
        cores: Processor cores that were usable.
        source: ``default`` came with onnx-fhe and is of some other machine; ``measured`` was measured.
        date: Date of the measurement (UTC, ISO).
        packages: Versions of what computed.
        measured: Parameter sets and milliseconds of one bootstrap, on one core.
        nanoseconds_per_product: Time of one coefficient of a ciphertext times a constant, on one core.
        call_seconds: Time of a call of a circuit besides its bootstraps.
        keygen_seconds, keygen_seconds_per_byte: Time of making keys, the second for each byte of them as
            used.
        loop_efficiency: Share of all cores' time that one sample uses when its loops run on all of them.
        job_efficiency: The same where each core computes a sample of its own.
        compile_seconds, compile_seconds_per_node: Time of making a circuit, the second for each node of its
            graph.
        memory_bytes, memory_per_key_byte: Memory of a process that computes, the second for each byte of its
            keys.
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
        return read_profile(path)

    @classmethod
    def default(cls) -> Profile:
        """The one that came with onnx-fhe."""
        return shipped()

    @classmethod
    def here(cls) -> Profile:
        """What was measured on this machine, or else the default."""
        return this_machine()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it in one step.

        Raises:
            OutputError: ``path`` cannot be written.
        """
        write_profile(self, path)

    def describe(self) -> str:
        """One line about where the numbers come from."""
        if self.source == "default":
            return (
                f"the default profile of onnx-fhe ({self.processor}); "
                "`onnx-fhe calibrate-cost` measures this machine"
            )
        return f"measured on {self.processor}, {self.cores} cores, {self.date[:10]}"


def cache_file() -> Path:
    """Where this machine's profile is kept: ``$XDG_CACHE_HOME/onnx-fhe/machine.json``."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The specification wants relative paths ignored.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "onnx-fhe" / "machine.json"


def this_machine() -> Profile:
    """The cached profile, or the shipped one where there is none that can be read."""
    try:
        return read_profile(cache_file())
    except (DataError, RuntimeError):
        return shipped()


@lru_cache(maxsize=1)
def shipped() -> Profile:
    """The profile that comes with onnx-fhe."""
    return _parse(resources.files(cost).joinpath(DEFAULT).read_bytes(), DEFAULT)


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Read a profile.

    Raises:
        DataError: There is no such file, or it is no profile, or of a newer format.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            "this profile of a machine cannot be read", file=str(path), found=error.strerror or "", do=_DO
        ) from error
    return _parse(content, str(path))


def write_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write a profile in one step; the folder of the cache is made.

    Raises:
        OutputError: It cannot be written.
    """
    if Path(path) == cache_file():
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                "the user's cache cannot be written", file=str(path), found=error.strerror or ""
            ) from error
    write_bytes(path, _adapter().dump_json(profile, indent=1) + b"\n")


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Profile]:
    return TypeAdapter(Profile)


def _parse(content: bytes, file: str) -> Profile:
    what = "this is no profile of a machine"
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(what, file=file, found=str(error), do=_DO) from error
    written = plain.get("format") if isinstance(plain, dict) else None
    if not isinstance(written, int):
        raise DataError(what, file=file, found="no format version", do=_DO)
    if written != FORMAT:
        raise DataError(
            "this profile of a machine has another format", file=file, found=str(written), allowed=str(FORMAT)
        )
    try:
        profile = _adapter().validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(what, file=file, found=f"{place}: {first['msg']}", do=_DO) from error
    if place := _senseless(profile):
        raise DataError(what, file=file, found=f"{place} is no sensible number", do=_DO)
    return profile


def _senseless(profile: Profile) -> str:
    """The name of the first number that cannot be true."""
    if not profile.measured:
        return "measured"
    for i, known in enumerate(profile.measured):
        sizes = [*vars(known.bootstrap).values(), *vars(known.keyswitch).values()]
        times = [known.milliseconds, known.complexity]
        if not all(0 < s < 2**40 for s in sizes) or not all(math.isfinite(t) and t > 0 for t in times):
            return f"measured.{i}"
    for field in fields(Profile):
        value = getattr(profile, field.name)
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
            return field.name
    for name in ("loop_efficiency", "job_efficiency"):
        if not 0 < getattr(profile, name) <= 1:
            return name
    return "" if profile.cores >= 1 else "cores"
