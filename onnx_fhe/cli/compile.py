"""``onnx-fhe compile``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from . import output, watch
from .options import (
    Backend,
    Bind,
    Calibration,
    Json,
    Limits,
    Machine,
    Margin,
    Model,
    Plugins,
    RangeMode,
    RangeModes,
    Seed,
    load_plugins,
    require_writable,
)


def compile_(
    model: Model,
    calibration: Calibration,
    out: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT.fhe", help="Where the circuit goes.", show_default=False),
    ],
    pipeline: Annotated[
        str | None,
        typer.Option("-p", "--pipeline", metavar="PIPELINE", help="Passes with options, or @FILE.toml."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="A pipeline by its name (default: balanced)."),
    ] = None,
    p_error: Annotated[
        float | None,
        typer.Option(
            "--p-error",
            metavar="F",
            help="Tolerated error of one table lookup (default: 1e-5 unless --global-p-error is given).",
        ),
    ] = None,
    global_p_error: Annotated[
        float | None,
        typer.Option("--global-p-error", metavar="F", help="Tolerated error of the whole circuit."),
    ] = None,
    range_mode: RangeModes = RangeMode.OBSERVED,
    range_margin: Margin = 0.2,
    backend: Backend = "concrete",
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="HTML", help="Write a page about the circuit, too."),
    ] = None,
    machine: Machine = None,
    seed: Seed = 0,
    bind: Bind = None,
    limits: Limits = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Make a circuit of a model."""
    if pipeline is not None and preset is not None:
        raise typer.BadParameter("give a pipeline or a preset, not both", param_hint="'-p' / '--preset'")
    with output.working() as progress, watch.contact(model, [calibration]):
        from ..compiling import compile_model
        from ..ir.bind import parse_bindings
        from ..ir.guard import FileLimits
        from ..passes.presets import DEFAULT
        from .summary import profile_of

        load_plugins(plugin)
        profile = profile_of(machine)
        if preset is not None:
            _require_preset(preset)
        require_writable(out)
        if page is not None:
            require_writable(page)
        program = compile_model(
            model,
            calibration,
            pipeline if pipeline is not None else preset or DEFAULT,
            backend,
            p_error=p_error,
            global_p_error=global_p_error,
            range_mode=range_mode.value,
            range_margin=range_margin,
            seed=seed,
            progress=progress,
            instruments=[watch.until_normalized()],
            limits=FileLimits().raised(limits or []),
            bind=parse_bindings(bind or []),
            machine=profile,
        )
        began = time.perf_counter()
        program.save(out)
        if page is not None:
            program.report(page)
        seconds = {**program.seconds, "save": time.perf_counter() - began}
    from .summary import report, show_manifest

    if json:
        output.print_json({**report(program.manifest, str(out), profile), "seconds": seconds})
        return
    output.say(f"{out}: {program.statistics.programmable_bootstraps} programmable bootstraps for one sample")
    show_manifest(program.manifest, profile)
    output.say(f"\ncompiled in {sum(seconds.values()):.1f} s")


def _require_preset(name: str) -> None:
    from ..ir.errors import PipelineError
    from ..passes.presets import PRESETS
    from ..passes.tokens import nearest

    if name not in PRESETS:
        raise PipelineError(
            f"there is no preset {name!r}", allowed=", ".join(PRESETS), do=nearest(name, list(PRESETS))
        )
