"""What commands print: text and tables for people, JSON for programs, progress on a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

Progress = Callable[[str, int, int], None]


def print_json(value: Any) -> None:
    """Print one object on standard output. ASCII only, so nothing in it can act on a terminal."""
    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """``value`` as JSON has it: dataclasses as objects, arrays as lists, NaN and infinities as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return str(value) if type(value) is not str and isinstance(value, str) else value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def say(text: str = "", *, err: bool = False) -> None:
    """Print text; control characters in names from files are shown, not sent."""
    from ..ir.errors import printable

    typer.echo(printable(text), err=err)


def notes(found: Sequence[str]) -> None:
    """Print what passes want the user to know."""
    for note in found:
        say(f"note: {note}")


def warn(found: Sequence[str]) -> None:
    """Print warnings on standard error."""
    for warning in found:
        say(f"warning: {warning}", err=True)


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Print pairs of a word and what it is."""
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        say(f"  {label:<{width}}  {text}")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: lined up columns, and with Rich on a terminal."""
    from ..ir.printer import line

    cells = [[line(str(cell)) for cell in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(headers))
    ]
    if sys.stdout.isatty():
        _rich_table(headers, cells, numeric)
        return
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    for row in [list(headers), *cells]:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        typer.echo(("  " + "  ".join(padded)).rstrip())


def _rich_table(headers: Sequence[str], cells: list[list[str]], numeric: list[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header, right in zip(headers, numeric, strict=True):
        drawn.add_column(Text(header), justify="right" if right else "left", overflow="fold")
    for row in cells:
        # Text, not markup: a node may be called "[red]".
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def _quiet(what: str, done: int, total: int) -> None:
    """No progress."""


@contextlib.contextmanager
def working() -> Iterator[Progress]:
    """Around a command's work: yields what reports progress, which shows on a terminal only.

    What passes and plug-ins print meanwhile goes to standard error: standard output belongs to the command.
    """
    with contextlib.redirect_stdout(sys.stderr):
        if sys.stderr.isatty():
            with _bars() as progress:
                yield progress
        else:
            yield _quiet


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    from .progress import RateColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        RateColumn(),
        TimeRemainingColumn(compact=True),
    )
    tasks: dict[str, Any] = {}
    # Transient: what is done needs no line. A plug-in's prints must not be drawn over.
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            for name, task in tasks.items():
                bars.update(task, visible=name == what and done < total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def size(count: int) -> str:
    """A number of bytes for people."""
    for step, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= step:
            digits = 1 if unit == "GB" and count < 10 * step else 0
            return f"{count / step:.{digits}f} {unit}"
    return f"{count} bytes"


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write an .npz in one step. ``numpy.savez`` takes no array of the name ``file``, and adds a suffix.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    import zipfile

    import numpy as np

    from ..ir.paths import atomic_path

    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]
