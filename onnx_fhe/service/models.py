"""The models of a service: what their server halves say of themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..ir.errors import ArtifactError, DataError, UserError
from ..sides.bundle import load
from ..sides.headers import CiphertextsHeader, CircuitEntry, ClientHeader, ServerHeader
from ..sides.server import Server
from .settings import Settings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        name: What requests call it.
        header: What its server half says.
        client: The client half, where it is given to whoever asks.
    """

    name: str
    header: ServerHeader
    client: bytes | None = None

    def circuit(self, asked: CiphertextsHeader) -> CircuitEntry:
        """The circuit that ciphertexts are for.

        Raises:
            DataError: They are for none of this model.
        """
        return Server.circuit_of(self.header, asked)


def named_files(given: list[str]) -> dict[str, Path]:
    """Server halves by name.

    Args:
        given: ``FILE``, whose model is called as it was when it was compiled, or ``NAME=FILE``.

    Raises:
        UserError: A file cannot be read, or a name does not do or stands twice.
    """
    found: dict[str, Path] = {}
    for text in given:
        before, sign, after = text.partition("=")
        named = bool(sign) and NAME.fullmatch(before) is not None
        path = Path(after if named else text)
        name = before if named else load(path, ServerHeader).header.name
        if not NAME.fullmatch(name) or name in found:
            raise UserError(
                "this name of a model does not do" if name not in found else "two models have one name",
                file=str(path),
                found=name,
                allowed="letters, digits, ., - and _",
                do=f"give it another: NAME={path}",
            )
        found[name] = path
    return found


def read_models(settings: Settings) -> dict[str, Model]:
    """The models of a service.

    Raises:
        ArtifactError: A file is not what it has to be, or a client half belongs to no model.
    """
    models = {}
    for name, path in settings.models.items():
        header = load(path, ServerHeader).header
        offered = settings.clients.get(name)
        models[name] = Model(name, header, None if offered is None else offered.read_bytes())
    return models


def matched_clients(models: dict[str, Path], clients: list[Path]) -> dict[str, Path]:
    """Client halves by the name of the model that they belong to.

    Raises:
        ArtifactError: One belongs to none of them.
    """
    found: dict[str, Path] = {}
    ids = {name: {c.id for c in load(path, ServerHeader).header.circuits} for name, path in models.items()}
    for path in clients:
        own = {c.id for c in load(path, ClientHeader).header.circuits}
        fitting = [name for name, known in ids.items() if own & known]
        if not fitting:
            raise ArtifactError(
                "this client half belongs to no model of the service",
                file=str(path),
                allowed=", ".join(models),
                do="give the one that was split from the same circuit",
            )
        found |= dict.fromkeys(fitting, path)
    return found


def check_parameters(models: dict[str, Model], parameters: str) -> None:
    """Refuse keys that no circuit takes.

    Raises:
        DataError: There is no such circuit.
    """
    known = {c.parameters for m in models.values() for c in m.header.circuits}
    if parameters not in known:
        raise DataError(
            "the evaluation keys serve no circuit of this service",
            found=parameters[:16],
            allowed=", ".join(sorted(k[:16] for k in known)),
            do="make keys with the client half of a model that is here",
        )
