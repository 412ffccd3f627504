"""``onnx-fhe tune``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..ir.range_options import DEFAULT_MARGIN
from . import frontier, output, stopping
from . import supervisor as watch
from .options import (
    Backend,
    Bind,
    Calibration,
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
    dask_option,
    data_option,
    load_plugins,
    output_option,
    p_error_option,
    page_option,
    require_writable,
)

if TYPE_CHECKING:
    from ..tuning.frontier import Frontier
    from ..tuning.state import State, Watch


def tune_(
    model: Model,
    calibration: Calibration,
    data: Annotated[
        Path, data_option("Validation samples that the search scores on, with 'labels' if known.")
    ],
    out: Annotated[
        Path,
        output_option(
            "BEST.fhe",
            "Where the best circuit goes. Beside it: BEST.tune.json (every trial and the frontier) and"
            " BEST.tune.journal (what a later call goes on from).",
        ),
    ],
    test: Annotated[
        Path | None,
        typer.Option(
            "--test", metavar="NPZ", help="Report on these samples at the end; nothing else uses them."
        ),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            "--max-accuracy-drop",
            metavar="F",
            help="How much worse than the float model on --data (0.01: one point; the default where no"
            " constraint is given).",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            "--min-accuracy", metavar="F", help="Least value of the metric (largest, for mean-error)."
        ),
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option("--max-latency", metavar="SECONDS", help="For one sample.")
    ] = None,
    min_throughput: Annotated[
        float | None, typer.Option("--min-throughput", metavar="F", help="Samples a second.")
    ] = None,
    max_key_size: Annotated[
        float | None, typer.Option("--max-key-size", metavar="MB", help="Of the evaluation keys.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="accuracy, agreement (with the float model), r2, mean-error, or module:function, a function"
            " of (outputs by name, labels), the higher the better. auto: what fits the labels.",
        ),
    ] = "auto",
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", help="End after so many trials, those of earlier calls too."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="N",
            help="Time for the search and for measuring its finalists (default: 600, or --trials). What is"
            " not done by then is left out. Ctrl-C ends it too, and the best so far is written.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            help="Trials at once, each in its own process (default: one for each core).",
            show_default=False,
        ),
    ] = None,
    dask: Annotated[
        str | None,
        dask_option("Run the trials on the workers of the Dask cluster at this address."),
    ] = None,
    finalists: Annotated[
        int,
        typer.Option("--finalists", metavar="N", help="Points that are compiled and measured at the end."),
    ] = 3,
    encrypted: Annotated[
        int, typer.Option("--encrypted", metavar="N", help="Samples that each of them runs on ciphertexts.")
    ] = 3,
    distill: Annotated[
        bool, typer.Option("--distill/--no-distill", help="Train students (with PyTorch).")
    ] = True,
    confidence: Annotated[
        float,
        typer.Option(
            "--confidence",
            metavar="F",
            help="Prefer circuits that clear a limit on accuracy by so many standard errors. With 0 the"
            " fastest that holds it at even odds wins, and what caution costs is shown; with 1.28 it should"
            " hold nine times in ten.",
        ),
    ] = 0.0,
    p_error: Annotated[float | None, p_error_option("searched")] = None,
    results: ForWhom = ResultsFor.OWNER,
    range_mode: RangeModes = RangeMode.OBSERVED,
    range_margin: Margin = DEFAULT_MARGIN,
    machine: Machine = None,
    backend: Backend = "concrete",
    page: Annotated[Path | None, page_option("the best circuit and the search")] = None,
    seed: Seed = 0,
    bind: Bind = None,
    limits: Limits = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Search for the best circuit under constraints on accuracy and cost."""
    with contextlib.redirect_stdout(sys.stderr), watch.contact(model, [calibration, data]):
        from ..ir.bind import parse_bindings
        from ..ir.guard import FileLimits
        from ..ir.paths import write_bytes
        from ..tuning.tune import tune

        load_plugins(plugin)
        journal, listing = out.with_suffix(".tune.journal"), out.with_suffix(".tune.json")
        for path in (out, listing, *([] if page is None else [page])):
            require_writable(path)
        with stopping.ending(), stopping.keeping(journal), _watching() as told:
            found = tune(
                model,
                calibration,
                data,
                max_accuracy_drop=max_accuracy_drop,
                min_accuracy=min_accuracy,
                max_latency=max_latency,
                min_throughput=min_throughput,
                max_key_size=None if max_key_size is None else max_key_size * 1e6,
                metric=metric,
                test=test,
                trials=trials,
                seconds=seconds,
                jobs=jobs,
                dask=dask,
                journal=journal,
                finalists=finalists,
                encrypted=encrypted,
                distill=distill,
                confidence=confidence,
                p_error=p_error,
                results=results.value,
                range_mode=range_mode.value,
                range_margin=range_margin,
                backend=backend,
                machine=machine,
                seed=seed,
                watch=told,
                plugins=plugin or (),
                limits=FileLimits().raised(limits or []),
                bind=parse_bindings(bind or []),
            )
        write_bytes(listing, found.frontier.to_json())
        near = out.with_suffix(f".nearest{out.suffix}")
        if found.nearest is not None:
            found.nearest.save(near)
        if found.program is not None:
            found.program.save(out)
            if page is not None:
                found.program.report(page, frontier=found.frontier)
    if json:
        output.print_json(
            frontier.report(found.frontier, out if found.program is not None else None, listing)
        )
    else:
        frontier.show(found.frontier, out, listing)
    if found.program is None:
        _refuse(found.frontier, None if found.nearest is None else near)
    if found.frontier.stopped:
        stopping.say(journal)
        raise KeyboardInterrupt


def _refuse(found: Frontier, written: Path | None) -> None:
    """Say which constraint cannot be met, and what comes nearest.

    Args:
        found: What the search found.
        written: Where the nearest circuit is, if there is one.

    Raises:
        UserError: Always.
    """
    from ..ir.errors import UserError

    near = found.chosen
    assert near is not None
    raise UserError(
        "no circuit was found that holds the constraints"
        + ("; none was written" if written is None else f"; the nearest is {written}"),
        found="; ".join(found.unmet) + f" (trial {near.number}, the nearest)",
        do=f"give more time or a weaker constraint, or compile the nearest: -p '{near.pipeline}'"
        f" --p-error {near.p_error:g}",
    )


@contextlib.contextmanager
def _watching() -> Iterator[Watch | None]:
    """Shows on a terminal where the search stands; in a pipe nothing."""
    if not sys.stderr.isatty():
        yield _until_begun
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:

        def told(state: State) -> None:
            _until_begun(state)
            live.update(frontier.drawn(state))

        yield told


def _until_begun(state: State) -> None:  # noqa: ARG001
    """End the limits of reading: the model has run, and the search may take as long as it needs."""
    watch.end()
