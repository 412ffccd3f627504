"""The program ``onnx-fhe``: its commands, its exit statuses, and what becomes of errors."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from .. import extras
from . import imports, memory, streams
from . import supervisor as watch
from .ask import ask
from .calibrate_cost import calibrate_cost
from .compile import compile_
from .inspect import inspect_
from .opt import opt
from .passes import passes
from .report import report
from .run import run
from .serve import serve
from .sides import decrypt, encrypt, evaluate, keygen, split
from .tune import tune_

FAULT, DEFECT, INTERRUPTED = 1, 3, 130
"""Exit statuses: the request is at fault; we are; Ctrl-C. 0 is done, 2 is usage."""

_DEBUG = "--debug"

_COLLECTED_OBJECTS = 20_000
"""New objects after which the garbage collector looks through them (Python's own threshold is 700)."""

app = typer.Typer(
    name="onnx-fhe",
    help="Compile trained ONNX networks to circuits that compute on encrypted data.",
    no_args_is_help=True,
    add_completion=False,
    # Plain text: Rich would take longer to import than everything else here.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("inspect")(inspect_)
app.command("passes")(passes)
app.command("opt")(opt)
app.command("compile")(compile_)
app.command("run")(run)
app.command("report")(report)
app.command("split")(split)
app.command("keygen")(keygen)
app.command("encrypt")(encrypt)
app.command("evaluate")(evaluate)
app.command("decrypt")(decrypt)
app.command("serve")(serve)
app.command("ask")(ask)
app.command("tune")(tune_)
app.command("calibrate-cost")(calibrate_cost)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"onnx-fhe {version('onnx-fhe')}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(_DEBUG, help="Show the traceback of an error; it may stand anywhere.")
    ] = False,
) -> None:
    """Compile trained ONNX networks to circuits that compute on encrypted data."""
    # `--version` has a callback, and `main` looks for `--debug` itself, wherever it stands.


@functools.cache
def parser() -> Any:
    """The commands with their options, as Typer makes them of the functions: once, for it takes a while."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    The status is 0 when all is done; 1 when the model, the data or the request is at fault (one message on
    standard error); 2 for wrong usage; 3 for a defect of onnx-fhe; 130 after Ctrl-C.

    Args:
        arguments: Without the name of the program. By default those of the process, and then the command runs
            in a child process (``watch``).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Imports and graphs make many objects that stay: Python would look for garbage among them every 700.
    gc.set_threshold(_COLLECTED_OBJECTS)
    debug = _DEBUG in given
    extra = extras.COMMANDS.get(given[0] if given else "", "compile")
    works = bool(given) and not {"-h", "--help", "--version"} & set(given)
    if arguments is None and works:
        if memory.is_hopeless():
            streams.say(f"error: {memory.message()}")
            sys.exit(FAULT)
        watch.fork()
    try:
        with streams.guarded():
            # A client or a server is installed without the compiler.
            if works and extra not in ("client", "server"):
                imports.onnx_ir()
            parser()([a for a in given if a != _DEBUG], prog_name="onnx-fhe")
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a message and a status
        if debug:
            traceback.print_exc()
        status = _report(error, debug, extra)
    except SystemExit as ended:
        if arguments is not None:
            raise
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else FAULT
    else:
        status = 0
    if arguments is None:
        _exit(status)
    sys.exit(status)


def _exit(status: int) -> NoReturn:
    """End the process with this status, without waiting for the threads of Concrete's runtime."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


def _report(error: Exception, debug: bool, extra: str) -> int:
    """Say what went wrong, on standard error; returns the exit status. ``extra`` is that of the command."""
    from ..ir.errors import OnnxFheError, UserError, printable

    if isinstance(error, ImportError):
        error = extras.missing(error, extra) or error

    advice = "" if debug else "\n  run again with --debug for the traceback, and report it"
    # Where no limit is set, an error of ours that names the file says more: a shape that asks for a terabyte.
    if memory.is_lack_of_memory(error) and not (isinstance(error, UserError) and memory.limit() is None):
        message, status = memory.message(), FAULT
    elif isinstance(error, UserError):
        message, status = str(error), FAULT
    elif isinstance(error, OnnxFheError):
        message, status = f"{error}\n  This is a defect of onnx-fhe, or of a plug-in.{advice}", DEFECT
    else:
        found = printable(f"{type(error).__name__}: {error}")
        message, status = f"a defect of onnx-fhe, or of a plug-in: {found}{advice}", DEFECT
    streams.say(f"error: {message}")
    return status
