"""What there is to emit: the server part of a model for some samples, with its shapes, ranges and tags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.graph import LAYOUT
from ...ir.movement import CANDIDATES, Movement, Movements
from ...ir.ops import Decrypt, Encrypt, RoundBits, TableLookup, decrypts_by_output, encrypts_by_input
from ...ir.runtime import Session
from ..concrete_runtime.store import Port

MAX_BOOTSTRAP_BITS = 8
"""Most bits of a table that one bootstrap computes."""


@dataclass(frozen=True)
class Plan:
    """A server part ready to be emitted.

    Attributes:
        server: The model.
        inputs, outputs: Its ports, in order.
        shapes: Shape of every value, for the samples of a call.
        lookups: The lookup of each TableLookup node.
        movements: What each node that may copy elements moves, but for the simplest; None where it computes.
        batch: Samples of a call.
    """

    server: ir.Model
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    shapes: dict[ir.Value, tuple[int, ...]]
    lookups: dict[ir.Node, TableLookup]
    movements: dict[ir.Node, Movement | None]
    batch: int = 1

    @property
    def wide(self) -> bool:
        """Whether a table takes more bits than one bootstrap does, so that integers are held in parts."""
        return any(x.table_bits > MAX_BOOTSTRAP_BITS for x in self.lookups.values())

    def tag(self, node: ir.Node) -> str:
        """A tag for Concrete: names of nodes hold dots and slashes, which it takes for structure."""
        return f"n{self._positions[node]}"

    @cached_property
    def _positions(self) -> dict[ir.Node, int]:
        return {n: i for i, n in enumerate(self.server.graph)}


def make_plan(server: ir.Model, batch: int = 1) -> Plan:
    """Plan the emission of a server part for so many samples a call.

    Raises:
        UnsupportedError: The batch axis is fixed, or samples lie on another axis on the way.
        VerificationError: A constant or a table breaks a rule of the integer level.
    """
    shapes = _shapes(server, batch)
    inputs = tuple(_port(e, e.input, shapes) for e in encrypts_by_input(server))
    outputs = tuple(_port(d, d.output, shapes) for d in decrypts_by_output(server))
    ask = Movements(server.graph.opset_imports.get("", 21))
    for value, shape in shapes.items():
        value.shape = ir.Shape(["N", *shape[1:]]) if shape else value.shape
    movements = {n: ask(n) for n in server.graph if n.domain == "" and n.op_type in CANDIDATES - LAYOUT}
    tables = TableLookup.all_in(server)
    for table in tables:
        table.check_rounding()
    return Plan(server, inputs, outputs, shapes, {t.node: t for t in tables}, movements, batch)


def _port(declares: Encrypt | Decrypt, value: ir.Value, shapes: dict[ir.Value, tuple[int, ...]]) -> Port:
    rounding = RoundBits.producing(declares.input)
    unit = 1 if rounding is None else rounding.unit
    return Port(value.name or "", shapes[value], *declares.range, unit)


def _shapes(server: ir.Model, batch: int) -> dict[ir.Value, tuple[int, ...]]:
    """Shapes as onnxruntime finds them on some samples: shape inference does not know every Reshape."""
    sample = {v: (batch, *_sample_shape(v)) for v in server.graph.inputs}
    computed = [v for n in server.graph for v in n.outputs if v.name]
    session = Session(server, [v.name or "" for v in computed])
    found = session.run({v.name or "": np.zeros(s, np.float32) for v, s in sample.items()})
    shapes = sample | {v: found[v.name or ""].shape for v in computed}
    if batch > 1:
        _check_batch(server, shapes, batch)
    return shapes


def _check_batch(server: ir.Model, shapes: dict[ir.Value, tuple[int, ...]], batch: int) -> None:
    for node in server.graph:
        for value in node.outputs:
            if (shapes.get(value) or (batch,))[0] != batch:
                raise UnsupportedError(
                    "samples of this network cannot be computed together",
                    node=node.name or "",
                    op=node.op_type,
                    found=f"shape {shapes[value]} for {batch} samples",
                    allowed="samples on the first axis throughout",
                    do="run it without --batch",
                )


def _sample_shape(value: ir.Value) -> tuple[int, ...]:
    """Without the batch axis."""
    dims = list(value.shape) if value.shape is not None else []
    fixed = [d for d in dims[1:] if isinstance(d, int)]
    if not dims or len(fixed) != len(dims) - 1:
        raise UnsupportedError(
            "the shape of a value to encrypt is not known",
            found=f"{value.name}: {dims or 'no shape'}",
            allowed="a batch axis and fixed sizes",
            do="give the model fixed sizes when exporting it",
        )
    if isinstance(dims[0], int) and dims[0] != 1:
        raise UnsupportedError(
            "the batch axis is fixed",
            found=f"{value.name}: {dims}",
            allowed="a free batch axis, or 1",
            do="export the model with a dynamic batch axis",
        )
    return tuple(fixed)
