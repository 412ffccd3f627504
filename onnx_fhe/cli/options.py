"""The options that several commands share, each declared once.

An option that means the same in every command is a type (``seed: Seed = 0``). Where commands write different
things, or have different defaults, a function makes the option of what is particular to the command:
``out: Annotated[Path, output_option("OUT.fhe", "Where the circuit goes.")]``.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class RangeMode(str, Enum):
    """Where ranges of accumulators come from."""

    OBSERVED = "observed"
    SOUND = "sound"


class ResultsFor(str, Enum):
    """Who may see what is decrypted."""

    OWNER = "owner"
    SHARED = "shared"


class ClientKind(str, Enum):
    """What the client computes before it encrypts."""

    INPUTS = "inputs"
    FEATURES = "features"


class Mode(str, Enum):
    """How a program runs."""

    CLEAR = "clear"
    SIMULATE = "simulate"
    ENCRYPTED = "encrypted"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
Circuit = Annotated[
    Path, typer.Argument(metavar="OUT.fhe", help="What `onnx-fhe compile` wrote.", show_default=False)
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE_OR_FILE", help="Load a plug-in; may be given several times."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limits",
        metavar="KEY=N",
        help="Raise a limit on what the model file may hold: bytes, nodes, nesting, dimensions, elements of a"
        " value, operations. May be given several times.",
    ),
]
Bind = Annotated[
    list[str] | None,
    typer.Option(
        "--bind",
        metavar="NAME=N",
        help="Size of a free axis of an input, by its name (or INPUT.AXIS); may be given several times.",
    ),
]
CALIBRATION = typer.Option(
    "--calibration",
    metavar="NPZ",
    help="An .npz with one array for each model input under its name, samples on axis 0 (one array of any"
    " name will do for a single input).",
    show_default=False,
)
"""The option of ``Calibration``, for a command that can do without."""
Calibration = Annotated[Path, CALIBRATION]
PIPELINE = typer.Option(
    "-p", "--pipeline", metavar="PIPELINE", help="Passes with options, or @FILE.toml.", show_default=False
)
"""Required in one command, and one of two ways in another: each says its type."""
Backend = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="The backend that makes the circuit.")
]
AcceptLoss = Annotated[
    bool,
    typer.Option(
        "--accept-loss",
        help="Write the result also where it computes something else than the network.",
    ),
]
SampleLimit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Take the first so many samples only.")
]
OriginalModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="ONNX",
        help="The model that was compiled: its own accuracy on the data, and how far the circuit agrees"
        " with it.",
    ),
]
RangeModes = Annotated[
    RangeMode,
    typer.Option(
        "--range-mode",
        help="Ranges of accumulators: observed on the calibration data, or sound (no input can overflow).",
    ),
]


ForWhom = Annotated[
    ResultsFor,
    typer.Option(
        "--results",
        help="Who may see what is decrypted: the owner of the keys alone, or (shared) anybody: errors are"
        " then so rare that nobody meets one (2^-128) and rounding is exact, which costs many times as much.",
    ),
]


def _margin(text: float | str) -> float | str:
    return text if text == "auto" else float(text)


ClientOption = Annotated[
    ClientKind,
    typer.Option(
        "--client",
        help="What the client computes before it encrypts. inputs: it prepares and quantizes them. features:"
        " also features of them that were drawn by chance, out of which the circuit reads the answers without"
        " a bootstrap. Either way its half holds no weight of the layers that run encrypted.",
    ),
]
ClientUntil = Annotated[
    list[str] | None,
    typer.Option(
        "--client-until",
        metavar="NODE",
        help="Have the client compute the network up to this node before it encrypts: whoever has the client"
        " half can read the weights of these layers. May be given several times.",
    ),
]
ClientFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--client-from",
        metavar="NODE",
        help="Have the client compute the network from this node on after it decrypts: whoever has the client"
        " half can read the weights of these layers, and the values that they are given. May be given several"
        " times.",
    ),
]
Margin = Annotated[
    Any,
    typer.Option(
        "--range-margin",
        metavar="F",
        parser=_margin,
        help="Margin on each side of an observed range, as a share of its width; auto: after the tails of the"
        " calibration data, as far as a margin saves more than the resolution that it takes.",
    ),
]
Machine = Annotated[
    Path | None,
    typer.Option(
        "--machine",
        metavar="FILE",
        help="Predict times for the machine of this profile (`calibrate-cost -o FILE` there); by default for"
        " this one.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seeds every random choice of the passes.")]


def output_option(metavar: str, summary: str) -> Any:
    """``-o``: where a command writes what it makes.

    Args:
        metavar: The kind of file.
        summary: What is written there.
    """
    return typer.Option("-o", "--output", metavar=metavar, help=summary, show_default=False)


def data_option(summary: str) -> Any:
    """``--data``: samples that a command computes on, which no pass has seen.

    Args:
        summary: What the samples are for.
    """
    return typer.Option("--data", metavar="NPZ", help=summary, show_default=False)


def batch_option(summary: str) -> Any:
    """``--batch``: samples in one call of a circuit.

    Args:
        summary: What a larger number does.
    """
    return typer.Option("--batch", metavar="N", min=1, help=summary)


def dask_option(summary: str) -> Any:
    """``--dask``: the address of a cluster that does the work.

    Args:
        summary: What its workers do.
    """
    return typer.Option("--dask", metavar="ADDRESS", help=summary, show_default=False)


def page_option(subject: str) -> Any:
    """``--report``: a page beside the circuit.

    Args:
        subject: What the page is about.
    """
    return typer.Option("--report", metavar="HTML", help=f"Write a page about {subject}, too.")


def p_error_option(default: str) -> Any:
    """``--p-error``.

    Args:
        default: What holds where it is not given.
    """
    return typer.Option(
        "--p-error", metavar="F", help=f"Tolerated error of one table lookup (default: {default})."
    )


def auto_or_number_option(flag: str, least: int, summary: str) -> Any:
    """An option that is ``auto`` or a whole number; the command gets ``"auto"`` or an int.

    Args:
        flag: The option, such as ``--jobs``.
        least: The smallest number that is allowed.
        summary: What the option does.
    """

    def read(text: int | str) -> int | str:
        if text == "auto" or isinstance(text, int):
            return text
        if text.isdigit() and int(text) >= least:
            return int(text)
        raise typer.BadParameter(f"{text!r} is neither auto nor a number from {least} on")

    return typer.Option(flag, metavar="N", parser=read, help=summary)


def load_plugins(specs: list[str] | None) -> None:
    """Load the plug-ins that were named.

    Raises:
        PluginError: One cannot be loaded.
    """
    if specs:
        from ..ir.plugins.loading import load_plugin

        for spec in specs:
            load_plugin(spec)


def require_writable(path: Path) -> None:
    """Refuse an output path now that could not be written after minutes of work.

    Raises:
        OutputError: It cannot be written.
    """
    from contextlib import suppress

    from ..ir.paths import atomic_path

    class Enough(Exception):  # noqa: N818 - no error: it ends the attempt before anything takes the name
        pass

    with suppress(Enough), atomic_path(path):
        raise Enough
