"""What of an integer-level model is encrypted, and what the client computes before and after."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import onnx_ir as ir

from .errors import UnsupportedError, VerificationError
from .graph import is_dialect


class Side(Enum):
    """Where a value lives."""

    CONSTANT = "constant"
    PROLOGUE = "client, before encryption"
    SERVER = "encrypted"
    EPILOGUE = "client, after decryption"


def sides_of(model: ir.Model) -> dict[ir.Value, Side]:
    """The side of every value but the initializers (which are constant).

    Raises:
        VerificationError: A value enters the encrypted part but through Encrypt, or leaves it but through
            Decrypt, or an operator of the circuit stands outside; the node is named.
        UnsupportedError: A value is encrypted that depends on a decrypted one (two rounds with the client).
    """
    sides: dict[ir.Value, Side] = dict.fromkeys(model.graph.inputs, Side.PROLOGUE)
    for node in model.graph:
        given = {v: sides.get(v, Side.CONSTANT) for v in node.inputs if v is not None}
        sides.update(dict.fromkeys(node.outputs, _side(node, given)))
    for output in model.graph.outputs:
        source = output.producer()
        if sides.get(output) is Side.SERVER and source is not None:
            raise _broken(
                source,
                "an encrypted value leaves the model",
                f"output {output.name!r}",
                "a Decrypt before it",
            )
    return sides


def _side(node: ir.Node, given: Mapping[ir.Value, Side]) -> Side:
    """The side of the outputs of ``node``."""
    met = set(given.values())
    if is_dialect(node, "Encrypt"):
        return _encrypt(node, met)
    if is_dialect(node, "Decrypt"):
        if met != {Side.SERVER}:
            raise _broken(node, "Decrypt of a value that is not encrypted", _names(met), "an encrypted value")
        return Side.EPILOGUE
    if Side.SERVER in met:
        if met - {Side.SERVER, Side.CONSTANT}:
            names = [v.name for v, s in given.items() if s in (Side.PROLOGUE, Side.EPILOGUE)]
            raise _broken(node, "an encrypted value meets a clear one", f"{names}", "an Encrypt before it")
        return Side.SERVER
    if is_dialect(node):
        raise _broken(
            node,
            "an operator of the circuit stands outside the encrypted part",
            _names(met),
            "encrypted input",
        )
    if Side.EPILOGUE in met:
        return Side.EPILOGUE
    return Side.PROLOGUE if met - {Side.CONSTANT} else Side.CONSTANT


def _encrypt(node: ir.Node, met: set[Side]) -> Side:
    if Side.EPILOGUE in met:
        raise UnsupportedError(
            "a value is encrypted that depends on a decrypted one",
            node=node.name or "",
            op=node.op_type,
            allowed="one encrypted region",
            do="cut the model in two, or choose operators that stay encrypted",
        )
    if met != {Side.PROLOGUE}:
        raise _broken(
            node, "Encrypt of a value that is not the client's to give", _names(met), "a client value"
        )
    return Side.SERVER


def _broken(node: ir.Node, rule: str, found: str, allowed: str) -> VerificationError:
    return VerificationError(rule, node=node.name or "", op=node.op_type, found=found, allowed=allowed)


def _names(sides: set[Side]) -> str:
    return ", ".join(sorted(s.value for s in sides)) or "no input"
