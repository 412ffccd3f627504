"""Pipelines kept in TOML files: ``[[pass]]`` tables with ``name`` and options, nested tables as mappings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...ir.errors import OnnxFheError, PipelineError
from .text import ParsedPass
from .values import OptionError, label

# In the standard library from 3.11 on; before, the package that it came from.
tomllib: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

MAX_PIPELINE_BYTES = 2**20
"""Size of a pipeline file: options for every layer of a deep network stay below it."""

EXAMPLE = '[[pass]] tables, each with name = "..." and the options of the pass'


@dataclass(frozen=True)
class TomlPlace:
    """A pass in a TOML file: the ``number``-th table (from 1)."""

    file: str
    number: int
    name: str

    def locate(self, error: OnnxFheError) -> OnnxFheError:
        """``error`` with the file and the table named in it."""
        value = f", {label(error.path)}" if isinstance(error, OptionError) and error.path else ""
        error.what += f" ([[pass]] number {self.number}, {self.name}{value})"
        return error.located(file=self.file)


def read_toml(path: str | Path) -> list[ParsedPass]:
    """The passes of a TOML file, in order.

    Raises:
        PipelineError: The file cannot be read, is not TOML, or holds something else than passes.
    """
    file = str(path)
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise PipelineError("this pipeline file is no regular file", file=file)
        if Path(path).stat().st_size > MAX_PIPELINE_BYTES:
            raise PipelineError(
                "this pipeline file is too large",
                file=file,
                allowed=f"up to {MAX_PIPELINE_BYTES} bytes",
                found="more",
            )
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise PipelineError("this pipeline file is nested too deep", file=file) from error
    except OSError as error:
        raise PipelineError(
            "this pipeline file cannot be read", file=file, found=error.strerror or ""
        ) from error
    except UnicodeDecodeError as error:
        raise PipelineError("this pipeline file is not text in UTF-8", file=file, found=str(error)) from error
    except ValueError as error:  # TOMLDecodeError, and whole numbers of too many digits
        raise PipelineError("this pipeline file is not valid TOML", file=file, found=str(error)) from error
    passes = tables.pop("pass", None)
    if not isinstance(passes, list) or not passes or tables:
        found = ", ".join(tables) or ("no [[pass]]" if not passes else "a single [pass] table")
        raise PipelineError("this file holds no pipeline", file=file, found=found, allowed=EXAMPLE)
    return [_parsed(table, file, number) for number, table in enumerate(passes, 1)]


def _parsed(table: Any, file: str, number: int) -> ParsedPass:
    name = table.pop("name", None) if isinstance(table, dict) else None
    if not isinstance(name, str):
        raise PipelineError(f"[[pass]] number {number} has no name", file=file, allowed='name = "..."')
    options: dict[str, Any] = {}
    for key, value in table.items():
        field_name = key.replace("-", "_")
        if field_name in options:
            raise PipelineError(
                f"{key!r} is given twice ([[pass]] number {number}, {name})",
                file=file,
                allowed="each key once",
            )
        options[field_name] = value
    return ParsedPass(name, options, TomlPlace(file, number, name))
