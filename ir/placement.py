"""What of a model is encrypted, and what the client computes before and after.

Of a model that is not yet of the integer level a node's mark says that the client computes it, whatever its
operator is (``keep_on_client``); where there is none, the linear operators decide (``analysis.regions``). At
the integer level ``Encrypt`` and ``Decrypt`` say all.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import onnx_ir as ir

from .errors import UnsupportedError, VerificationError
from .graph import is_dialect

CLIENT_KEY = "onnx_fhe.placement"
"""Metadata of nodes that the client computes although their operator could run encrypted."""
_CLIENT, _PUBLIC = "client", "client, public"


def keep_on_client(node: ir.Node, public: bool = False) -> None:
    """Have the client compute ``node``, whatever its operator is.

    Args:
        node: The node.
        public: Whether it says nothing about the network: then no scale of it may, either.
    """
    node.metadata_props[CLIENT_KEY] = _PUBLIC if public else _CLIENT


def is_kept_on_client(node: ir.Node) -> bool:
    """Whether the client was chosen to compute ``node``."""
    return node.metadata_props.get(CLIENT_KEY) in (_CLIENT, _PUBLIC)


def is_public(value: ir.Value) -> bool:
    """Whether the client computes ``value`` by functions that say nothing about the network."""
    node = value.producer()
    return node is not None and node.metadata_props.get(CLIENT_KEY) == _PUBLIC


class Placement(Enum):
    """Where a value lives."""

    CONSTANT = "constant"
    PROLOGUE = "client, before encryption"
    SERVER = "encrypted"
    EPILOGUE = "client, after decryption"


def placements_of(model: ir.Model) -> dict[ir.Value, Placement]:
    """The placement of every value but the initializers (which are constant).

    Raises:
        VerificationError: A value enters the encrypted part but through Encrypt, or leaves it but through
            Decrypt, or an operator of the circuit stands outside; the node is named.
        UnsupportedError: A value is encrypted that depends on a decrypted one (two rounds with the client).
    """
    placements: dict[ir.Value, Placement] = dict.fromkeys(model.graph.inputs, Placement.PROLOGUE)
    for node in model.graph:
        given = {v: placements.get(v, Placement.CONSTANT) for v in node.inputs if v is not None}
        placements.update(dict.fromkeys(node.outputs, _placement(node, given)))
    for output in model.graph.outputs:
        source = output.producer()
        if placements.get(output) is Placement.SERVER and source is not None:
            raise _broken(
                source,
                "an encrypted value leaves the model",
                f"output {output.name!r}",
                "a Decrypt before it",
            )
    return placements


def _placement(node: ir.Node, given: Mapping[ir.Value, Placement]) -> Placement:
    """The placement of the outputs of ``node``."""
    met = set(given.values())
    if is_dialect(node, "Encrypt"):
        return _encrypt(node, met)
    if is_dialect(node, "Decrypt"):
        if met != {Placement.SERVER}:
            raise _broken(node, "Decrypt of a value that is not encrypted", _names(met), "an encrypted value")
        return Placement.EPILOGUE
    if Placement.SERVER in met:
        if met - {Placement.SERVER, Placement.CONSTANT}:
            names = [v.name for v, s in given.items() if s in (Placement.PROLOGUE, Placement.EPILOGUE)]
            raise _broken(node, "an encrypted value meets a clear one", f"{names}", "an Encrypt before it")
        return Placement.SERVER
    if is_dialect(node):
        raise _broken(
            node,
            "an operator of the circuit stands outside the encrypted part",
            _names(met),
            "encrypted input",
        )
    if Placement.EPILOGUE in met:
        return Placement.EPILOGUE
    return Placement.PROLOGUE if met - {Placement.CONSTANT} else Placement.CONSTANT


def _encrypt(node: ir.Node, met: set[Placement]) -> Placement:
    if Placement.EPILOGUE in met:
        raise UnsupportedError(
            "a value is encrypted that depends on a decrypted one",
            node=node.name or "",
            op=node.op_type,
            allowed="one encrypted region",
            do="cut the model in two, or choose operators that stay encrypted",
        )
    if met != {Placement.PROLOGUE}:
        raise _broken(
            node, "Encrypt of a value that is not the client's to give", _names(met), "a client value"
        )
    return Placement.SERVER


def _broken(node: ir.Node, rule: str, found: str, allowed: str) -> VerificationError:
    return VerificationError(rule, node=node.name or "", op=node.op_type, found=found, allowed=allowed)


def _names(placements: set[Placement]) -> str:
    return ", ".join(sorted(s.value for s in placements)) or "no input"
