"""Sizes for the free axes of a model's inputs: by name from the user, or from the shapes of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from .errors import ModelError

Shapes = Mapping[str, Sequence[int]]


def parse_bindings(texts: Sequence[str]) -> dict[str, int]:
    """``NAME=VALUE`` texts as a mapping.

    Raises:
        ModelError: One is of another form, or its value is no positive whole number.
    """
    found: dict[str, int] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name.strip() or not value.strip().isdecimal() or len(value) > 9 or int(value) < 1:
            raise ModelError(
                "a size to bind does not parse",
                found=repr(text[:80]),
                allowed="NAME=VALUE with a positive whole number, such as height=28",
            )
        found[name.strip()] = int(value)
    return found


def bind(proto: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    """Give free axes of the inputs the sizes that the user names, in place.

    Args:
        proto: The model.
        sizes: Size by the name of the axis (``height``), or by input and number of the axis (``image.2``).

    Raises:
        ModelError: A name is no free axis of an input, or a size is not positive.
    """
    free = _free(proto)
    names = {name for name, _ in free} | {place for _, place in free}
    for name, size in sizes.items():
        if name not in names or size < 1:
            raise ModelError(
                "this size cannot be bound",
                found=f"{name}={size}",
                allowed="positive sizes of the free axes: " + ", ".join(_shown(free))
                if free
                else "the inputs have no free axes",
                do="see the axes with `onnx-fhe inspect`",
            )
    named = dict(sizes)
    for axis, place in free:
        if place in sizes and axis:
            named.setdefault(axis, sizes[place])  # one name is one size, wherever it stands
    _write(proto, named)


def bind_to(proto: onnx.ModelProto, shapes: Shapes) -> None:
    """Give free axes the sizes that data has, in place; axis 0 counts samples and stays free.

    Data that does not fit the inputs is left to the check of the data itself.

    Args:
        proto: The model.
        shapes: Shapes of the arrays by name; a single one will do for a single input, whatever its name.
    """
    inputs = real_inputs(proto)
    if len(inputs) == 1 and len(shapes) == 1:
        shapes = {inputs[0].name: next(iter(shapes.values()))}
    sizes: dict[str, int] = {}
    for info in inputs:
        dims, shape = info.type.tensor_type.shape.dim, shapes.get(info.name, ())
        if not info.type.tensor_type.HasField("shape") or len(dims) != len(shape):
            continue
        batch = dims[0].dim_param if dims else ""
        for number, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            if number and not dim.HasField("dim_value") and not (batch and dim.dim_param == batch):
                sizes[dim.dim_param or f"{info.name}.{number}"] = int(size)
    _write(proto, sizes)


def real_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are no initializers."""
    constant = {t.name for t in proto.graph.initializer}
    return [i for i in proto.graph.input if i.name not in constant]


def _free(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    """(name of the axis or "", place) of every free axis of an input."""
    return [
        (dim.dim_param, f"{info.name}.{number}")
        for info in real_inputs(proto)
        for number, dim in enumerate(info.type.tensor_type.shape.dim)
        if not dim.HasField("dim_value")
    ]


def _shown(free: Sequence[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(name or place for name, place in free))


def _write(proto: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    graph = proto.graph
    for info in [*graph.input, *graph.output, *graph.value_info]:
        for number, dim in enumerate(info.type.tensor_type.shape.dim):
            size = sizes.get(f"{info.name}.{number}", sizes.get(dim.dim_param) if dim.dim_param else None)
            if size is not None and not dim.HasField("dim_value"):
                dim.dim_value = size
