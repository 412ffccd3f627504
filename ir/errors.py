"""The one error hierarchy.

A ``UserError`` is a mistake that the person at the keyboard can mend: the command line prints it without a
traceback and exits with 1. Anything else is a defect of ours (exit status 3).
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Where:
    """Where an error was found; empty parts are left out of the message.

    Attributes:
        file: Path of the model, data or pipeline file.
        pass_name: Text name of the pass that ran, such as ``quantize``.
        node: Name of the ONNX node.
        op: Operator of that node, such as ``Gemm``.
    """

    file: str = ""
    pass_name: str = ""
    node: str = ""
    op: str = ""


class OnnxFheError(Exception):
    """Base of every error that onnx-fhe raises itself.

    Args:
        what: One sentence that says what is wrong.
        found: What was found.
        allowed: What would be accepted.
        do: What to do about it.
        file, pass_name, node, op: see ``Where``.
    """

    def __init__(
        self,
        what: str,
        *,
        found: str = "",
        allowed: str = "",
        do: str = "",
        file: str = "",
        pass_name: str = "",
        node: str = "",
        op: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.found = found
        self.allowed = allowed
        self.do = do
        self.where = Where(file=file, pass_name=pass_name, node=node, op=op)

    def located(self, **where: str) -> OnnxFheError:
        """Fill in parts of ``where`` that are still empty and return this error."""
        known = {f.name: getattr(self.where, f.name) or where.get(f.name, "") for f in fields(Where)}
        self.where = Where(**known)
        return self

    def __str__(self) -> str:
        place = self.where
        node = f"{place.node!r} ({place.op})" if place.op else repr(place.node)
        rows = [
            ("file", place.file),
            ("pass", place.pass_name),
            ("node", node if place.node or place.op else ""),
            ("found", self.found),
            ("allowed", self.allowed),
            ("do", self.do),
        ]
        lines = [printable(self.what)]
        for label, text in rows:
            if text:
                # Indented, so that no line of a name from a file looks like one of ours.
                lines.append(f"  {label + ':':<9}{printable(text)}".replace("\n", "\n" + " " * 11))
        return "\n".join(lines)


def printable(text: str) -> str:
    """Text from a file may hold terminal escapes; show them instead of sending them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


class UserError(OnnxFheError):
    """A mistake in the model, the data or the request."""


class ModelError(UserError):
    """The model file cannot be read, is not valid ONNX, or does not hold what it claims."""


class UnsupportedError(UserError):
    """The model holds something that cannot be computed on encrypted data as it stands."""


class DataError(UserError):
    """Calibration or run-time data of the wrong name, shape, type or content."""


class PipelineError(UserError):
    """A pipeline text that does not parse, or an option that a pass does not take."""


class LimitError(UserError):
    """The circuit would exceed what the target takes (bits of a table input, of an accumulator)."""


class PluginError(UserError):
    """A plug-in that cannot be loaded, or that takes a name that is taken."""


class MissingPackageError(UserError):
    """A package that is not installed: the extra that was asked for, or what it needs."""


class FidelityError(UserError):
    """A circuit that computes something else than the network that it was made from: too much is lost."""


class OutputError(UserError):
    """An output file that cannot be written."""


class ArtifactError(UserError):
    """A ``.fhe`` file that is damaged, or of a format that this version does not read."""


class ServiceError(UserError):
    """A service that refuses a request, or cannot be reached.

    Attributes:
        code: The word that the service has for it; empty where it says none.
    """

    code: str = ""


class VerificationError(OnnxFheError):
    """A model broke a rule of its level: a defect of the pass that produced it."""


class LoweringMismatchError(OnnxFheError):
    """The circuit and the integer model disagree on calibration samples: a defect, never an answer."""
