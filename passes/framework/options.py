"""The options of a pass: read from its fields, each checked against its type and bounds."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from onnx_ir.passes import PassBase

from ...ir.errors import OnnxFheError
from ...ir.suggest import nearest
from .values import MAPPING, OptionError, OptionPath, OptionSpec, convert_value


@cache
def options_of(cls: type) -> tuple[OptionSpec, ...]:
    """The options of a pass class, in the order of its fields.

    Raises:
        OnnxFheError: A field has a type that the text form has no way to write.
    """
    try:
        hints = get_type_hints(cls)
    except NameError as error:
        raise OnnxFheError(
            f"the types of the options of {cls.__name__} cannot be read",
            found=str(error),
            do="import at run time, not under TYPE_CHECKING, what the fields are annotated with",
        ) from error
    specs = []
    for field in dataclasses.fields(cls):
        if not field.metadata.get("option"):
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        about = {k: field.metadata[k] for k in ("help", "low", "high", "choices", "formerly")}
        spec = OptionSpec(field.name, hints[field.name], default, **about)
        _require_writable(spec.hint, f"{cls.__name__}.{field.name}")
        specs.append(spec)
    return tuple(specs)


def check_options(pass_: PassBase) -> None:
    """Check every option of a pass and bring its value to the declared type.

    Lists become tuples, whole numbers become floats where a float is declared, mappings are copied, and the
    inner keys of ``layers`` become field names.

    Raises:
        OptionError: A value of the wrong kind or out of its bounds.
    """
    specs = options_of(type(pass_))
    name = getattr(pass_, "name", "") or type(pass_).__name__
    for spec in specs:
        object.__setattr__(pass_, spec.name, convert(spec, getattr(pass_, spec.name), specs, name))


def convert(
    spec: OptionSpec, value: object, siblings: tuple[OptionSpec, ...] = (), pass_name: str = ""
) -> Any:
    """``value`` as option ``spec`` holds it; ``siblings`` are all options of the pass (for ``layers``).

    Raises:
        OptionError: It does not take this value.
    """
    try:
        if not spec.per_layer:
            return convert_value(value, spec.hint, spec, (spec.name,))
        own = tuple(s for s in siblings if s is not spec)
        whole = convert_value(value, Mapping[str, Mapping[str, Any]], spec, (spec.name,))
        return {node: _layer(options, own, node, spec, pass_name) for node, options in whole.items()}
    except OptionError as error:
        error.located(pass_name=pass_name)
        raise


def _layer(
    options: Mapping[str, object], own: tuple[OptionSpec, ...], node: str, layers: OptionSpec, pass_name: str
) -> dict[str, Any]:
    """The options of one node, each checked as the pass's own option of that name."""
    checked = {}
    for key, value in options.items():
        spec = find_option(key, own, pass_name, (layers.name, node, key))
        if spec.name in checked:
            raise OptionError(f"option {spec.key!r} is given twice for {node!r}", allowed="each option once")
        checked[spec.name] = convert_value(value, spec.hint, spec, (layers.name, node, key))
    return checked


def find_option(
    key: str, specs: tuple[OptionSpec, ...], pass_name: str, path: OptionPath | None = None
) -> OptionSpec:
    """The option written ``key``, or formerly written so, with dashes or underscores.

    Raises:
        OptionError: There is none; it suggests the nearest.
    """
    name = key.replace("-", "_")
    for spec in specs:
        if name in (spec.name, spec.formerly):
            return spec
    error = OptionError(
        f"{pass_name} has no option {key.replace('_', '-')!r}",
        allowed=", ".join(s.key for s in specs) or "no options",
        do=nearest(key, [s.key for s in specs]),
        pass_name=pass_name,
    )
    error.path, error.on_key = path or (key,), True
    raise error


def _require_writable(hint: Any, what: str) -> None:
    """Refuse an option whose type the text form cannot write: its author should know at once."""
    origin, parts = get_origin(hint), get_args(hint)
    inner: tuple[Any, ...] = ()
    if origin in (Union, types.UnionType):
        inner = parts
    elif origin is tuple and parts:
        inner = parts[:1] if parts[1:] == (...,) else parts
    elif origin is MAPPING and parts[0] is str:
        inner = parts[1:]
    elif origin is not Literal and hint not in (bool, int, float, str, type(None), Any):
        raise OnnxFheError(
            f"option {what} has a type that a pipeline text cannot hold",
            found=str(hint),
            allowed="bool, int, float, str, None, Literal, tuple[X, ...], Mapping[str, X], unions of them",
        )
    for part in inner:
        _require_writable(part, what)
