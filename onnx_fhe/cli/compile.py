"""``onnx-fhe compile``."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..ir.range_options import DEFAULT_MARGIN
from . import output
from . import supervisor as watch
from .options import (
    PIPELINE,
    AcceptLoss,
    Backend,
    Bind,
    Calibration,
    ClientFrom,
    ClientKind,
    ClientOption,
    ClientUntil,
    ForWhom,
    Json,
    Limits,
    Machine,
    Margin,
    Model,
    Plugins,
    RangeMode,
    RangeModes,
    ResultsFor,
    Seed,
    auto_or_number_option,
    batch_option,
    load_plugins,
    output_option,
    p_error_option,
    page_option,
    require_writable,
)
from .sides import half_files, require_sides, write_halves


def compile_(
    model: Model,
    calibration: Calibration,
    out: Annotated[Path, output_option("OUT.fhe", "Where the circuit goes.")],
    pipeline: Annotated[str | None, PIPELINE] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="A pipeline by its name (default: balanced)."),
    ] = None,
    p_error: Annotated[float | None, p_error_option("1e-5 unless --global-p-error is given")] = None,
    global_p_error: Annotated[
        float | None,
        typer.Option("--global-p-error", metavar="F", help="Tolerated error of the whole circuit."),
    ] = None,
    range_mode: RangeModes = RangeMode.OBSERVED,
    range_margin: Margin = DEFAULT_MARGIN,
    backend: Backend = "concrete",
    results: ForWhom = ResultsFor.OWNER,
    security_level: Annotated[
        int, typer.Option("--security-level", metavar="BITS", help="Bits of security: 128 or 132.")
    ] = 128,
    accept_loss: AcceptLoss = False,
    self_test: Annotated[
        Any,
        auto_or_number_option(
            "--self-test",
            0,
            "Encrypt so many calibration samples, compute and decrypt them, and compare; 0 for none. auto:"
            " three, or as many as take up to 20 s with making the keys.",
        ),
    ] = "auto",
    page: Annotated[Path | None, page_option("the circuit")] = None,
    halves: Annotated[
        bool,
        typer.Option(
            "--halves",
            help="Write the two halves too, OUT.client for whoever holds the keys and OUT.server for whoever"
            " computes (as `onnx-fhe split` does).",
        ),
    ] = False,
    batch: Annotated[
        list[int] | None,
        batch_option(
            "Make a circuit for N samples a call too, for `run`, `keygen` and `encrypt` with --batch N. Give"
            " it several times for several numbers."
        ),
    ] = None,
    client: ClientOption = ClientKind.INPUTS,
    client_until: ClientUntil = None,
    client_from: ClientFrom = None,
    imitate: Annotated[
        bool,
        typer.Option(
            "--imitate",
            help="Compile a student that imitates the model, whatever it is made of (trees, kernel machines,"
            " recurrent cells): the client computes public features, the circuit reads the answers out of"
            " them. What the student loses is measured.",
        ),
    ] = False,
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
    with output.working() as progress, _told_at_the_end(), watch.contact(model, [calibration]):
        from ..compiling import compile_model
        from ..ir.bind import parse_bindings
        from ..ir.guard import FileLimits
        from ..passes.framework.presets import DEFAULT
        from .summary import profile_of

        load_plugins(plugin)
        profile = profile_of(machine)
        if preset is not None:
            _require_preset(preset)
        require_writable(out)
        if page is not None:
            require_writable(page)
        if halves:
            require_sides(backend, out)
        program = compile_model(
            model,
            calibration,
            pipeline if pipeline is not None else preset or DEFAULT,
            backend,
            p_error=p_error,
            global_p_error=global_p_error,
            range_mode=range_mode.value,
            range_margin=range_margin,
            results=results.value,
            security_level=security_level,
            seed=seed,
            accept_loss=accept_loss,
            self_test=self_test,
            progress=progress,
            instruments=[watch.until_normalized()],
            limits=FileLimits().raised(limits or []),
            bind=parse_bindings(bind or []),
            machine=profile,
            batch=batch or [],
            client=client.value,
            client_until=client_until or [],
            client_from=client_from or [],
            imitate=imitate,
        )
        began = time.perf_counter()
        program.save(out)
        if page is not None:
            program.report(page)
        if halves:
            write_halves(program, out)
        seconds = {**program.seconds, "save": time.perf_counter() - began}
    from .summary import report, show_manifest, show_promise

    if json:
        output.print_json({**report(program.manifest, str(out), profile), "seconds": seconds})
    else:
        show_promise(program.manifest, profile)
        also = f", and in halves to {' and '.join(map(str, half_files(out).values()))}," if halves else ""
        output.say(f"Written to {out}{also} after {sum(seconds.values()):.1f} s.\n")
        show_manifest(program.manifest, profile)
    output.warn(program.manifest.warnings)


@contextlib.contextmanager
def _told_at_the_end() -> Iterator[None]:
    """Warnings that the manifest holds are printed with the rest, not by Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _require_preset(name: str) -> None:
    from ..ir.errors import PipelineError
    from ..ir.suggest import nearest
    from ..passes.framework.presets import PRESETS

    if name not in PRESETS:
        raise PipelineError(
            f"there is no preset {name!r}", allowed=", ".join(PRESETS), do=nearest(name, list(PRESETS))
        )
