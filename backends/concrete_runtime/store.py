"""Circuits in files.

``server/circuit.mlir`` and ``server/circuit.json`` are what a server needs, ``client/specs.json`` and
``client/ports.json`` what a client needs. The program is kept as MLIR and compiled again when it is loaded: a
shared library would run on one kind of processor only, and would have to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ...ir.errors import ArtifactError, OutputError
from ...ir.paths import write_bytes
from ..statistics import CircuitStatistics, ParameterStrategy

FORMAT = 1
"""Version of a circuit's files; another one is refused."""
SECURITY_LEVELS = (128, 132)
"""Bits of security that Concrete has parameters for."""

T = TypeVar("T")

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


@dataclass(frozen=True)
class Port:
    """An input or output of the circuit.

    Attributes:
        name: Name of the Encrypt or Decrypt output.
        shape: Shape of the samples of a call; there is one of them unless asked for more.
        low, high: Declared range (inclusive).
        unit: What Concrete decrypts is a multiple of this; 1 but behind a rounding.
    """

    name: str
    shape: tuple[int, ...]
    low: int
    high: int
    unit: int = 1


@dataclass(frozen=True)
class Settings:
    """How a program was compiled, and must be again.

    A field that was added later has a default, the way of programs from before.

    Attributes:
        strategy: The parameter strategy that was taken.
        compress_inputs: Whether inputs are sent as seeds; circuits from before that was possible say nothing.
        others: As those of ``LowerOptions`` of the same name.
    """

    strategy: ParameterStrategy
    p_error: float | None
    global_p_error: float | None
    security_level: int
    compress_keys: bool
    loop_parallelize: bool
    compress_inputs: bool = False


@dataclass(frozen=True)
class Program:
    """The server's part: MLIR, how to compile it, and what it costs.

    Attributes:
        settings: How it was compiled.
        statistics: What it costs.
        maker: What made it (``maker.fingerprint``); empty in circuits from before it was kept.
        format: Version of the files.
    """

    settings: Settings
    statistics: CircuitStatistics
    maker: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class Ports:
    """The circuit's interface, for client and server."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    format: int = FORMAT


@dataclass(frozen=True)
class Stored:
    """Everything that is kept of a circuit."""

    program: Program
    mlir: str
    ports: Ports
    specs: bytes


def write(folder: Path, stored: Stored) -> None:
    """Write a circuit into ``folder``, which is made where it is missing.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        for part in ("server", "client"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "this folder cannot be made", file=str(folder), found=error.strerror or ""
        ) from error
    write_bytes(folder / "server" / "circuit.mlir", stored.mlir.encode())
    write_bytes(folder / "server" / "circuit.json", _dump(stored.program))
    write_bytes(folder / "client" / "ports.json", _dump(stored.ports))
    write_bytes(folder / "client" / "specs.json", stored.specs)


def read(folder: Path) -> Stored:
    """Read a circuit from ``folder``.

    Raises:
        ArtifactError: A file is missing or damaged, or of another format.
    """
    program = _parse(Program, folder / "server" / "circuit.json")
    _check_settings(program.settings)
    specs, ports = read_client(folder)
    mlir = _read(folder / "server" / "circuit.mlir").decode(errors="replace")
    return Stored(program, mlir, ports, specs)


def read_client(folder: Path) -> tuple[bytes, Ports]:
    """What a client needs: Concrete's description of the program, and the ports.

    Raises:
        ArtifactError: A file is missing or damaged, or of another format.
    """
    ports = _parse(Ports, folder / "client" / "ports.json")
    _check_ports(ports)
    return _read(folder / "client" / "specs.json"), ports


def _check_settings(settings: Settings) -> None:
    given = [p for p in (settings.p_error, settings.global_p_error) if p is not None]
    if not given or not all(0 < p < 1 for p in given):
        found, allowed = f"errors of {given}", "at least one, between 0 and 1"
    elif settings.security_level not in SECURITY_LEVELS:
        found, allowed = f"{settings.security_level} bits of security", " or ".join(map(str, SECURITY_LEVELS))
    else:
        return
    raise ArtifactError("this file is damaged", file="circuit.json", found=found, allowed=allowed)


def _check_ports(ports: Ports) -> None:
    every = (*ports.inputs, *ports.outputs)
    names = [p.name for p in every]
    for port in every:
        if port.unit < 1 or port.low > port.high or not port.shape or min(port.shape) < 1:
            raise ArtifactError(
                "this file is damaged",
                file="ports.json",
                found=f"{port.name!r} of shape {port.shape}, {port.low} .. {port.high}, unit {port.unit}",
                allowed="a shape and a unit from 1 up, and a range",
            )
    if not ports.inputs or not ports.outputs or len(set(names)) != len(names):
        raise ArtifactError("this file is damaged", file="ports.json", found=f"the ports {', '.join(names)}")


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """What writes and reads such objects; to make it takes longer than either."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _dump(value: Any) -> bytes:
    return bytes(_adapter(type(value)).dump_json(value, indent=1))


def _parse(kind: type[T], path: Path) -> T:
    content = _read(path)
    try:
        value = _adapter(kind).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(
            "this file is damaged", file=path.name, found=f"{place}: {first['msg']}"
        ) from error
    if (found := getattr(value, "format", FORMAT)) != FORMAT:
        raise ArtifactError(
            "this circuit has another format", file=path.name, found=str(found), allowed=str(FORMAT)
        )
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError("a file of the circuit is missing", found=path.name) from error
