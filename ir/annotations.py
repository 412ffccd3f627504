"""Analysis results kept beside a value, in ``value.metadata_props`` under ``onnx_fhe.*``.

They can always be computed again: rewrites may drop them, and nothing that changes the meaning of a model is
kept here. As they are strings in the metadata they survive saving and loading.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

PREFIX = "onnx_fhe."

Number = int | float


@dataclass(frozen=True)
class Annotation:
    """What is known about a value; ``None`` where nothing is.

    Attributes:
        low: Smallest element (that calibration showed, or that is possible at all: see ``analyze-ranges``).
        high: Largest element.
        sound_low: Smallest element that any input can lead to.
        sound_high: Largest element that any input can lead to.
        bits: Bits that an integer in ``low .. high`` takes.
        table_bits: Bits that reach the lookup table which makes this value.
        pbs: Programmable bootstraps that make this value, for one sample.
    """

    low: Number | None = None
    high: Number | None = None
    sound_low: Number | None = None
    sound_high: Number | None = None
    bits: int | None = None
    table_bits: int | None = None
    pbs: int | None = None


_FIELDS = tuple(f.name for f in fields(Annotation))


def get(value: ir.Value) -> Annotation:
    """What is known about ``value``; an entry that is not a number counts as unknown."""
    return Annotation(
        low=_number(value, "low"),
        high=_number(value, "high"),
        sound_low=_number(value, "sound_low"),
        sound_high=_number(value, "sound_high"),
        bits=_integer(value, "bits"),
        table_bits=_integer(value, "table_bits"),
        pbs=_integer(value, "pbs"),
    )


def put(
    value: ir.Value,
    *,
    low: Number | None = None,
    high: Number | None = None,
    sound_low: Number | None = None,
    sound_high: Number | None = None,
    bits: int | None = None,
    table_bits: int | None = None,
    pbs: int | None = None,
) -> None:
    """Record the parts that are given; the others stay as they are."""
    given = {
        "low": low,
        "high": high,
        "sound_low": sound_low,
        "sound_high": sound_high,
        "bits": bits,
        "table_bits": table_bits,
        "pbs": pbs,
    }
    for name, number in given.items():
        if number is not None:
            # numpy's scalars print as numbers only after conversion.
            plain = number.item() if hasattr(number, "item") else number
            value.metadata_props[PREFIX + name] = repr(plain)


def get_range(value: ir.Value) -> tuple[Number, Number] | None:
    """The range (inclusive) of ``value``'s elements, where known."""
    known = get(value)
    return None if known.low is None or known.high is None else (known.low, known.high)


def clear(model: ir.Model) -> bool:
    """Forget what is known about every value of ``model``; returns whether anything was."""
    modified = False
    for value in _values(model):
        for name in _FIELDS:
            modified |= value.metadata_props.pop(PREFIX + name, None) is not None
    return modified


def _values(model: ir.Model) -> list[ir.Value]:
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in RecursiveGraphIterator(model.graph):
        values.extend(node.outputs)
    return values


def _number(value: ir.Value, name: str) -> Number | None:
    text = value.metadata_props.get(PREFIX + name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _integer(value: ir.Value, name: str) -> int | None:
    number = _number(value, name)
    return number if isinstance(number, int) else None
