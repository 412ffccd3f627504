"""What the files of the two sides say of themselves."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..ir.errors import ArtifactError
from ..ir.results import DEFAULT_RESULTS, Results
from ..ports import Port

FORMAT = 1
"""Version of all these files."""

T = TypeVar("T", bound="Header")


@dataclass(frozen=True)
class Header:
    """What every file says.

    Attributes:
        kind: What the file is, as in ``KIND`` of its class; ``MAKER`` says what writes such files.
        parts: SHA-256 of each other file in it.
        format: Version of the file.
    """

    KIND: ClassVar[str] = ""
    MAKER: ClassVar[str] = ""

    kind: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The content of ``header.json``."""
        return json.dumps(dataclasses.asdict(self) | {"kind": self.KIND}, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class CircuitEntry:
    """One circuit of a half.

    Attributes:
        batch: Samples of one call.
        id: The same for the same program with the same parameters; both halves know it.
        parameters: The same wherever the same keys serve.
    """

    batch: int
    id: str
    parameters: str


@dataclass(frozen=True)
class HalfHeader(Header):
    """What both halves say.

    Attributes:
        name: File name of the network, without its ending.
        backend: Who made the circuits.
        circuits: One circuit, and others for more samples a call.
        p_error, global_p_error: Tolerated error of one table lookup, and of the whole circuit.
        security_level: Bits of security.
        results: Who may see what was decrypted.
        packages: Versions of the packages that made it.
    """

    name: str = ""
    backend: str = "concrete"
    circuits: tuple[CircuitEntry, ...] = ()
    p_error: float | None = None
    global_p_error: float | None = None
    security_level: int = 128
    results: Results = DEFAULT_RESULTS
    packages: dict[str, str] = field(default_factory=dict)

    def circuit(self, batch: int = 1) -> CircuitEntry:
        """The circuit for so many samples a call.

        Raises:
            ArtifactError: There is none.
        """
        for entry in self.circuits:
            if entry.batch == batch:
                return entry
        raise ArtifactError(
            "there is no circuit for so many samples a call",
            found=str(batch),
            allowed=", ".join(str(c.batch) for c in self.circuits),
            do="compile with --batch, and split again",
        )


@dataclass(frozen=True)
class ClientHeader(HalfHeader):
    """The client's half.

    Attributes:
        inputs, outputs: The interface of the network.
    """

    KIND: ClassVar[str] = "client half"
    MAKER: ClassVar[str] = "`onnx-fhe split OUT.fhe` writes it, as OUT.client"

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()


@dataclass(frozen=True)
class ServerHeader(HalfHeader):
    """The server's half."""

    KIND: ClassVar[str] = "server half"
    MAKER: ClassVar[str] = "`onnx-fhe split OUT.fhe` writes it, as OUT.server"


@dataclass(frozen=True)
class SecretKeysHeader(Header):
    """Secret keys.

    Attributes:
        parameters: What they serve (``CircuitEntry.parameters``).
        keys: The identity of the pair of secret and evaluation keys.
        pair: A random number of the pair, which is part of its identity.
    """

    KIND: ClassVar[str] = "secret keys"
    MAKER: ClassVar[str] = "`onnx-fhe keygen` writes them"

    parameters: str = ""
    keys: str = ""
    pair: str = ""


@dataclass(frozen=True)
class EvaluationKeysHeader(Header):
    """Evaluation keys; the attributes are those of ``SecretKeysHeader``."""

    KIND: ClassVar[str] = "evaluation keys"
    MAKER: ClassVar[str] = "`onnx-fhe keygen` writes them, where -o says"

    parameters: str = ""
    keys: str = ""
    pair: str = ""


@dataclass(frozen=True)
class CiphertextsHeader(Header):
    """Encrypted inputs.

    Attributes:
        circuit: What they are for (``CircuitEntry.id``).
        keys: What they are encrypted with.
        batch: Samples of one call.
        samples: How many all calls hold; the last call may be filled up.
        names: Names of the values of a call; a part ``calls/i/k`` is the k-th value of the i-th call.
        request: A random number that the results carry too.
    """

    KIND: ClassVar[str] = "ciphertexts"
    MAKER: ClassVar[str] = "`onnx-fhe encrypt` writes them"

    circuit: str = ""
    keys: str = ""
    batch: int = 1
    samples: int = 0
    names: tuple[str, ...] = ()
    request: str = ""


@dataclass(frozen=True)
class ResultsHeader(CiphertextsHeader):
    """Encrypted results; the attributes are those of ``CiphertextsHeader``."""

    KIND: ClassVar[str] = "results"
    MAKER: ClassVar[str] = "`onnx-fhe evaluate` writes them"


KINDS: dict[str, type[Header]] = {
    c.KIND: c
    for c in (
        ClientHeader,
        ServerHeader,
        SecretKeysHeader,
        EvaluationKeysHeader,
        CiphertextsHeader,
        ResultsHeader,
    )
}


def parse(kind: type[T], content: bytes) -> T:
    """Read a ``header.json``.

    Raises:
        ArtifactError: It is of another kind, damaged, or of a newer format.
    """
    plain: Any
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error)) from error
    found = plain.get("kind") if isinstance(plain, dict) else None
    if found not in KINDS:
        raise _damaged("no kind that is known")
    if found != kind.KIND:
        raise wrong_kind(str(found), kind)
    written = plain.get("format")
    if not isinstance(written, int) or written < 1:
        raise _damaged("no format version")
    if written > FORMAT:
        raise ArtifactError(
            "this file was written by a newer onnx-fhe",
            found=f"format {written}",
            allowed=f"up to {FORMAT}",
            do="update onnx-fhe on this side",
        )
    try:
        read: T = _adapter(kind).validate_json(content)
        return read
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def wrong_kind(found: str, wanted: type[Header]) -> ArtifactError:
    """What to say where one kind of file stands for another."""
    advice = f"give the {wanted.KIND}: {wanted.MAKER}"
    if found == SecretKeysHeader.KIND:
        advice = f"keep it where it was made: with it, whoever computes could read everything; {advice}"
    what = "this is another file than the one that is needed"
    return ArtifactError(what, found=found, allowed=wanted.KIND, do=advice)


def _damaged(found: str) -> ArtifactError:
    return ArtifactError("the header of this file is damaged", found=found)


def _adapter(kind: type[Header]) -> TypeAdapter[Any]:
    """What reads a header; to make it takes longer than to read."""
    if kind.KIND not in _ADAPTERS:
        _ADAPTERS[kind.KIND] = TypeAdapter(kind)
    return _ADAPTERS[kind.KIND]


_ADAPTERS: dict[str, TypeAdapter[Any]] = {}
