"""From a pipeline text to passes: presets and files are put in place, names looked up, options checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

from onnx_ir.passes import PassBase

from ...ir.errors import OnnxFheError, PipelineError
from .base import Pass
from .onnx_ir_passes import onnx_ir_name, onnx_ir_options
from .presets import PRESETS
from .registry import find_pass
from .text import ParsedPass, parse, print_options
from .toml_text import read_toml


def parse_passes(text: str) -> list[PassBase]:
    """The passes of a pipeline text.

    Args:
        text: Names of passes with options, of presets, and ``@FILE.toml``, separated by commas.

    Raises:
        PipelineError: The text does not parse, or names something that there is not; it points at the place.
        PluginError: A name that two plug-ins want.
    """
    return [_create(parsed) for parsed in _expand(parse(text))]


def print_passes(passes: Sequence[PassBase]) -> str:
    """The pipeline text of passes; one that has no name in pipelines appears under its class's name."""
    return ",".join(pass_text(p) for p in passes)


def pass_text(pass_: PassBase) -> str:
    """The text of one pass, with its options."""
    if isinstance(pass_, Pass):
        return pass_.to_text()
    name = onnx_ir_name(pass_)
    if name is None:
        return type(pass_).__name__
    specs = onnx_ir_options(type(pass_))
    return print_options(name, specs, {s.name: getattr(pass_, s.name, s.default) for s in specs})


def pass_name(pass_: PassBase) -> str:
    """The name of one pass in a pipeline."""
    return pass_.name if isinstance(pass_, Pass) else onnx_ir_name(pass_) or type(pass_).__name__


def _expand(parsed: list[ParsedPass]) -> Iterator[ParsedPass]:
    for one in parsed:
        if one.is_file:
            yield from _expand(read_toml(one.name))
        elif one.name in PRESETS:
            if one.options:
                error = PipelineError(
                    f"{one.name!r} is a preset and takes no options",
                    do=f"write its pipeline instead: {PRESETS[one.name].text}",
                )
                raise one.place.locate(error)
            yield from parse(PRESETS[one.name].text)
        else:
            yield one


def _create(parsed: ParsedPass) -> PassBase:
    try:
        return find_pass(parsed.name).create(parsed.options)
    except OnnxFheError as error:
        # A copy: the error of a broken plug-in is kept, and raised again for the next one who asks.
        raise parsed.place.locate(copy(error)) from error.__cause__
