"""Profiles in files: the shipped one, this machine's in the user's cache, and those of other machines."""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields
from functools import lru_cache
from importlib import resources
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..analysis import cost
from ..analysis.cost.timing import DEFAULT
from ..ir.errors import DataError, OutputError
from ..ir.paths import write_bytes
from .profile import FORMAT, Profile

_DO = "write one with `onnx-fhe calibrate-cost -o FILE`"


def cache_file() -> Path:
    """Where this machine's profile is kept: ``$XDG_CACHE_HOME/onnx-fhe/machine.json``."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The specification wants relative paths ignored.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "onnx-fhe" / "machine.json"


def this_machine() -> Profile:
    """The cached profile, or the shipped one where there is none that can be read."""
    try:
        return read_profile(cache_file())
    except (DataError, RuntimeError):
        return shipped()


@lru_cache(maxsize=1)
def shipped() -> Profile:
    """The profile that comes with onnx-fhe."""
    return _parse(resources.files(cost).joinpath(DEFAULT).read_bytes(), DEFAULT)


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Read a profile.

    Raises:
        DataError: There is no such file, or it is no profile, or of a newer format.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            "this profile of a machine cannot be read", file=str(path), found=error.strerror or "", do=_DO
        ) from error
    return _parse(content, str(path))


def write_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write a profile in one step; the folder of the cache is made.

    Raises:
        OutputError: It cannot be written.
    """
    if Path(path) == cache_file():
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                "the user's cache cannot be written", file=str(path), found=error.strerror or ""
            ) from error
    write_bytes(path, TypeAdapter(Profile).dump_json(profile, indent=1) + b"\n")


def _parse(content: bytes, file: str) -> Profile:
    what = "this is no profile of a machine"
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(what, file=file, found=str(error), do=_DO) from error
    written = plain.get("format") if isinstance(plain, dict) else None
    if not isinstance(written, int):
        raise DataError(what, file=file, found="no format version", do=_DO)
    if written != FORMAT:
        raise DataError(
            "this profile of a machine has another format", file=file, found=str(written), allowed=str(FORMAT)
        )
    try:
        profile = TypeAdapter(Profile).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(what, file=file, found=f"{place}: {first['msg']}", do=_DO) from error
    if place := _senseless(profile):
        raise DataError(what, file=file, found=f"{place} is no sensible number", do=_DO)
    return profile


def _senseless(profile: Profile) -> str:
    """The first number that cannot be, by its name."""
    if not profile.measured:
        return "measured"
    for i, known in enumerate(profile.measured):
        sizes = [*vars(known.bootstrap).values(), *vars(known.keyswitch).values()]
        times = [known.milliseconds, known.complexity]
        if not all(0 < s < 2**40 for s in sizes) or not all(math.isfinite(t) and t > 0 for t in times):
            return f"measured.{i}"
    for field in fields(Profile):
        value = getattr(profile, field.name)
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
            return field.name
    for name in ("loop_efficiency", "job_efficiency"):
        if not 0 < getattr(profile, name) <= 1:
            return name
    return "" if profile.cores >= 1 else "cores"
