"""``onnx-fhe report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .options import Json, Plugins, load_plugins, require_writable

if TYPE_CHECKING:
    from ..tuning.frontier import Frontier


def report(
    circuit: Annotated[
        Path, typer.Argument(metavar="OUT.fhe", help="What `onnx-fhe compile` wrote.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="HTML", help="Where the page goes.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="NPZ",
            help="Measure on this data instead of the calibration data; with 'labels' there are accuracies.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="ONNX", help="The model that was compiled, to compare with it on --data."
        ),
    ] = None,
    frontier: Annotated[
        Path | None,
        typer.Option("--frontier", metavar="JSON", help="What `onnx-fhe tune` found, to show the trade-off."),
    ] = None,
    machine: Annotated[
        Path | None,
        typer.Option("--machine", metavar="FILE", help="Predict times for this machine (a profile)."),
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Write a page about a circuit, for people to look at: one HTML file that loads nothing."""
    with output.working():
        from ..machine import Profile
        from ..program import Program

        load_plugins(plugin)
        require_writable(out)
        known = None if frontier is None else read_frontier(frontier)
        profile = None if machine is None else Profile.load(machine)
        Program.load(circuit).report(out, data=data, model=model, frontier=known, profile=profile)
    if json:
        output.print_json({"file": str(out), "bytes": out.stat().st_size})
    else:
        output.say(f"{out}: open it in a browser")


def read_frontier(path: Path) -> Frontier:
    """What a search found.

    Raises:
        ArtifactError: There is no such file, or it is none.
    """
    from ..ir.errors import ArtifactError
    from ..tuning.frontier import Frontier

    try:
        return Frontier.from_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(
            "the result of a search cannot be read", file=str(path), found=error.strerror or ""
        ) from error
    except ArtifactError as error:
        raise error.located(file=str(path)) from error.__cause__
