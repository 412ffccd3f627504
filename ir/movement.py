"""Operators that only copy elements (Slice, Concat, Pad and so on), found out by running them on numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .graph import LAYOUT, constant_of, variable_inputs
from .probing import NodeProber

CANDIDATES = LAYOUT | {
    "CenterCropPad",
    "Compress",
    "Concat",
    "DepthToSpace",
    "Expand",
    "Gather",
    "GatherElements",
    "GatherND",
    "Pad",
    "Resize",
    "ReverseSequence",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Tile",
    "Trilu",
    "Upsample",
    "Where",
}
"""Operators worth asking; whether one only copies elements is decided by its run."""
FILLS = frozenset({"Concat", "Pad", "ScatterElements", "ScatterND", "Where"})
"""Those that may put constants of their inputs between the elements."""
ZEROS = frozenset({"CenterCropPad", "Pad", "Trilu"})
"""Those that may put zeros between them without being given any."""
MAX_NUMBERED_ELEMENTS = 2**23
"""Elements of a tensor whose movement is found out: the number of each must be exact in float32."""


@dataclass(frozen=True)
class Movement:
    """Which element of its inputs each element of an output is, for one sample.

    Attributes:
        sources: The inputs that are no constants.
        places: Element numbers, shaped as one sample of the output (without the batch axis). The elements of
            one sample of all sources count on from one to the next; -1 marks a constant.
        constants: The constant elements; 0 where an element is moved.
    """

    sources: tuple[ir.Value, ...]
    places: np.ndarray
    constants: np.ndarray

    @property
    def filled(self) -> np.ndarray:
        """Where the output holds constants."""
        return np.asarray(self.places < 0)

    def apply(self, *arrays: np.ndarray) -> np.ndarray:
        """What the operator makes of arrays of its sources (batches of samples)."""
        flat = np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)
        moved = flat[:, np.maximum(self.places, 0)]
        return np.where(self.filled, self.constants.astype(moved.dtype), moved)


def sample_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of one sample (without the batch axis), where it is known."""
    if value is None or value.shape is None or not len(value.shape):
        return None
    dims = list(value.shape)[1:]
    sizes = [d for d in dims if isinstance(d, int)]
    return tuple(sizes) if len(sizes) == len(dims) else None


def may_move(node: ir.Node) -> bool:
    """Whether a node is worth asking: cheap, by its name."""
    if node.domain != "" or node.op_type not in CANDIDATES or len(node.outputs) != 1:
        return False
    if node.attributes.get_string("reduction", "none") != "none":
        return False  # scatters what it computes of both
    if node.op_type.startswith("Gather") and constant_of(node.inputs[0]) is not None:
        return False  # picks constants by an encrypted index: a function of it, not a move
    # With one tensor Where is an ordinary function of it.
    return node.op_type != "Where" or (
        len(variable_inputs(node)) > 1 and constant_of(node.inputs[0]) is not None
    )


Moved = tuple[np.ndarray, np.ndarray]
"""Places and constants of a ``Movement``."""


class Movements(NodeProber[Moved]):
    """Answers what a node moves."""

    def __call__(self, node: ir.Node | None) -> Movement | None:
        """The movement of a node with one output; None where it computes, or mixes samples."""
        if node is None or not may_move(node):
            return None
        sources = tuple(variable_inputs(node))
        shapes = [s for v in sources if (s := sample_shape(v)) is not None]
        if not sources or len(shapes) != len(sources):
            return None
        found = self.ask(node, sources, lambda: self._probe(node, sources, shapes))
        return None if found is None else Movement(sources, *found)

    def _probe(
        self, node: ir.Node, sources: tuple[ir.Value, ...], shapes: list[tuple[int, ...]]
    ) -> Moved | None:
        sizes = [math.prod(s) for s in shapes]
        total = sum(sizes)
        if not 0 < total < MAX_NUMBERED_ELEMENTS:
            return None
        batch = 1 if any(v.shape is not None and v.shape[0] == 1 for v in sources) else 2
        starts = np.cumsum([0, *sizes])
        random = np.random.default_rng(0)
        given: list[dict[ir.Value, np.ndarray]] = []
        inputs: list[np.ndarray] = []
        for flat in (
            # Every element has a number of its own; numbers alone would take a Relu or a Round for a move.
            np.arange(batch * total, dtype=np.float32).reshape(batch, total),
            random.normal(size=(batch, total)).astype(np.float32),
            random.normal(size=(batch, total)).astype(np.float32),
        ):
            inputs.append(flat)
            given.append(
                {
                    v: np.ascontiguousarray(flat[:, a:b]).reshape(batch, *s)
                    for v, s, a, b in zip(sources, shapes, starts, starts[1:], strict=False)
                }
            )
        runs = [r for (r,) in self.run(node, given, node.outputs)]
        for found in runs:
            if found.ndim < 1 or len(found) != batch or found.dtype != np.float32:
                return None
        numbers = runs[0][0]
        fixed = (runs[0][0] == runs[1][0]) & (runs[1][0] == runs[2][0])
        whole = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (numbers >= 0) & (numbers < total)
        if not (whole | fixed).all():
            return None
        places = np.where(fixed, -1, np.where(whole, numbers, 0)).astype(np.int64)
        constants = np.where(fixed, numbers, 0).astype(np.float32)
        for flat, found in zip(inputs, runs, strict=True):
            moved = np.where(fixed, constants, flat[:, np.maximum(places, 0)])
            if not np.array_equal(moved, found, equal_nan=True):
                return None
        return places, constants
