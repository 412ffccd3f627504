"""NaN and infinity: constants that hold them, and computed values that became so."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from .errors import ModelError, UserError
from .graph import variable_inputs
from .runtime import Session, run

_LINEAR = frozenset({"Conv", "ConvTranspose", "DequantizeLinear", "Gemm", "MatMul", "QuantizeLinear"})
"""Operators that make nothing but NaN of an infinite constant."""


def constants(model: ir.Model) -> dict[str, np.ndarray]:
    """The constants, by name, that hold NaN, or infinity where no operator may have it.

    An infinite bound of Clip, or a mask in front of Softmax, means something.
    """
    found: dict[str, np.ndarray] = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is None or value.dtype is None or not value.dtype.is_floating_point():
            continue
        array = value.const_value.numpy()
        finite = _is_finite(array)
        if finite.all():
            continue
        if np.isnan(array[~finite].astype(np.float32)).any() or any(
            n.op_type in _LINEAR for n in value.consumers()
        ):
            found[name] = array
    return found


def check_constants(model: ir.Model, known: Mapping[str, np.ndarray]) -> None:
    """Refuse constants that are no finite numbers.

    Args:
        model: The model.
        known: Those that it came with.

    Raises:
        ModelError: There is one; its first reader, and the first cell, are named.
    """
    for name, array in constants(model).items():
        if name in known:
            continue
        reader = next(iter(model.graph.initializers[name].consumers()), None)
        raise ModelError(
            "a constant of the model is no finite number any more",
            node="" if reader is None else str(reader.name or ""),
            op="" if reader is None else reader.op_type,
            found=f"{name!r}{cell(array)}",
            allowed="constants that are finite in 32-bit floats (up to 3.4e38)",
            do="scale the weights that meet here, so that their products stay in range; weights this large,"
            " or zeros that something is divided by, are a sign that training diverged",
        )


def _is_finite(array: np.ndarray) -> np.ndarray:
    # Short floats that numpy does not know (bfloat16) are compared as longer ones.
    return np.asarray(np.isfinite(array if array.dtype.kind == "f" else array.astype(np.float32)))


def cell(array: np.ndarray) -> str:
    """Where the first value is that is no finite number, what it is, and how many there are."""
    wrong = ~_is_finite(array)
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    return f"{where} = {array[place]} ({int(wrong.sum())} of {array.size} values)"


class Watch:
    """Checks on a few samples that outputs stay finite where those of the first model are.

    Args:
        model: What it begins with.
        data: Arrays by input name, samples on axis 0; the first few are run.
    """

    def __init__(self, model: ir.Model, data: Mapping[str, np.ndarray]) -> None:
        self._data = {k: v[:_CHECKED_SAMPLES] for k, v in data.items()}
        self._finite = {k: np.isfinite(v) for k, v in self._outputs(model).items()}

    def check(self, model: ir.Model) -> None:
        """Refuse a model with an output that is no finite number any more.

        Raises:
            ModelError: There is one; the node where it begins, and the first cell, are named.
        """
        for name, array in self._outputs(model).items():
            before = self._finite.get(name)
            if before is not None and before.shape == array.shape and (before & ~np.isfinite(array)).any():
                raise _no_number(
                    first(model, self._data),
                    "a value is no finite number any more, where that of the float network is one",
                    "scale the inputs or weights in front of this node down, to numbers usual in a network",
                )

    def _outputs(self, model: ir.Model) -> dict[str, np.ndarray]:
        try:
            return _floats(run(model, self._data))
        except UserError:
            return {}  # a batch that is written into the model, for example: passes say what is wrong


def ranks(model: ir.Model, data: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Axes of the outputs, found by a run on one batch of the data; none where that fails."""
    if not data:
        return {}
    try:
        session = Session(model)
        found = session.run({k: v[: session.batch_size() or 1] for k, v in data.items()})
    except UserError:
        return {}
    return {k: v.ndim for k, v in found.items()}


def check_network(model: ir.Model, data: Mapping[str, np.ndarray]) -> None:
    """Refuse a network that computes no finite number at some place, whatever the sample.

    Args:
        model: A float model.
        data: Arrays by input name, samples on axis 0.

    Raises:
        ModelError: There is such a place; the node where it begins is named.
    """
    few = {k: v[:_CHECKED_SAMPLES] for k, v in data.items()}
    found, origin = first(model, few, always=True), first(model, few)
    # Outside its domain (the logarithm of a negative) a function of one tensor is NaN: its table goes on
    # there with the nearest value that it has.
    domain = origin is not None and len(variable_inputs(origin[0])) == 1 and not np.isinf(origin[2]).any()
    if found is not None and origin is not None and (not domain or origin[0].op_type in _LINEAR):
        raise _no_number(
            found,
            "the float network computes no finite number here, on any calibration sample",
            "check the weights in front of this node (a training run that diverged leaves huge ones), what"
            " it divides by, and that the calibration data is scaled as the training data was",
        )


def check_sums(model: ir.Model, data: Mapping[str, np.ndarray]) -> None:
    """Refuse a network whose sums leave the range of 32-bit floats on some samples: no circuit follows those.

    Args:
        model: A float model.
        data: Samples on which a value is not finite, by input name.

    Raises:
        ModelError: The first such value is a sum; its node is named.
    """
    origin = first(model, {k: v[:_CHECKED_SAMPLES] for k, v in data.items()})
    if origin is not None and origin[0].op_type in _LINEAR:
        raise _no_number(
            origin,
            "a sum of the float network is no finite number on some calibration samples",
            "scale the inputs or weights in front of this node down, to numbers usual in a network, or leave"
            " these samples out",
        )


def first(
    model: ir.Model, data: Mapping[str, np.ndarray], *, always: bool = False
) -> tuple[ir.Node, str, np.ndarray] | None:
    """The first node whose result is not finite, for one of the samples or (``always``) for all."""
    values = [o for n in model.graph for o in n.outputs if o.name]
    found = _floats(Session(model, [str(v.name) for v in values]).run_batched(data))
    for node in model.graph:
        for output in node.outputs:
            array = found.get(str(output.name))
            if array is None or not array.size:
                continue
            wrong = ~np.isfinite(array)
            if (wrong.ndim and wrong.all(axis=0).any()) if always else wrong.any():
                return node, str(output.name), array
    return None


_CHECKED_SAMPLES = 16
"""Samples that are run after each pass."""


def _floats(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v for k, v in arrays.items() if v.dtype.kind == "f"}


def _no_number(found: tuple[ir.Node, str, np.ndarray] | None, what: str, do: str) -> ModelError:
    if found is None:
        return ModelError(what, do=do)
    node, name, array = found
    return ModelError(
        what,
        node=str(node.name or ""),
        op=node.op_type,
        found=f"{name!r}{cell(array)}, samples first, on the first {len(array)} calibration samples",
        allowed="values that are finite in 32-bit floats (up to 3.4e38)",
        do=do,
    )
