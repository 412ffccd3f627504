"""``TableLookup``: its tables, the range that they declare, and the bits and bootstraps that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..bits import bits_of
from ..errors import VerificationError
from ..graph import STANDS_FOR, layer_of, title_of
from .constants import constant_input, integers_of
from .rounding import BehindRounding
from .tables import HasTables
from .view import default_of


def along_axis(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """``values`` (channels) shaped to broadcast along ``axis`` of a tensor of ``rank`` axes.

    A single value gets ``rank`` axes of size 1.
    """
    shape = [1] * rank
    if len(values) > 1:
        shape[axis % rank] = len(values)
    return values.reshape(shape)


@dataclass(frozen=True)
class TableLookup(HasTables, BehindRounding):
    """``entries[c, (x - first[c]) / step]`` of every element ``x`` in channel ``c``: one bootstrap each.

    ``input`` is what indexes the tables; ``source`` is the accumulator before the rounding in front, if any.
    """

    op_type: ClassVar[str] = "TableLookup"
    tensors: ClassVar[int] = 1

    @property
    def integer_entries(self) -> np.ndarray:
        """``entries`` as int64.

        Raises:
            VerificationError: An entry is no integer.
        """
        return integers_of(self.node.inputs[1], self.node)

    @property
    def integer_first(self) -> np.ndarray:
        """``first`` as int64.

        Raises:
            VerificationError: One is no integer.
        """
        return integers_of(self.node.inputs[2], self.node)

    @property
    def step(self) -> int:
        """Distance of the inputs of neighbouring entries, a power of two.

        Behind a RoundBits nothing lies between two of them. Without one, each entry holds for ``step``
        accumulators: a coarse table.
        """
        return self._int("step")

    @property
    def p_error(self) -> float | None:
        """Tolerated error of one lookup; None where the node leaves it to whoever makes the circuit."""
        found = self.node.attributes.get_float("p_error", float(default_of(self.op_type, "p_error")))
        # Attributes are float32: 1e-5 shall be 1e-5 again.
        return float(f"{found:.6g}") if found else None

    @property
    def channels(self) -> int:
        """Number of tables."""
        return self._table_shape[0]

    @property
    def size(self) -> int:
        """Entries of each table."""
        return self._table_shape[1]

    @property
    def entry_inputs(self) -> np.ndarray:
        """(channels, size): the input that selects each entry, or the first of several that do."""
        return np.asarray(self.first[:, None] + self.step * np.arange(self.size))

    @property
    def is_rounded_exactly(self) -> bool:
        """Whether an exact rounding that removes bits stands in front of it."""
        return self.rounding is not None and self.rounding.is_exact and self.lsbs_to_remove > 0

    @property
    def span(self) -> int:
        """The largest accumulator, less ``first``, that is within the declared range."""
        # What is rounded up to the next multiple is the half step below it.
        return self.size * self.step - 1 - (self.step // 2 if self.lsbs_to_remove else 0)

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest accumulator that are declared, all channels together (inclusive)."""
        first = self.first
        return int(first.min()), int(first.max()) + self.span

    @property
    def table_bits(self) -> int:
        """Bits that reach the table."""
        inputs = self.size if self.lsbs_to_remove else self.span + 1
        return bits_of(0, inputs - 1)

    @property
    def accumulator_bits(self) -> int:
        """Bits of the accumulator once ``first`` is subtracted: rounding leaves exactly ``table_bits``."""
        return self.table_bits + self.lsbs_to_remove

    @property
    def title(self) -> tuple[str, str]:
        """Name and operator of the layer whose accumulator it takes in, as its user knows them."""
        if STANDS_FOR[0] in self.node.metadata_props:
            return title_of(self.node)
        return title_of(layer_of(self.input) or self.node)

    @property
    def elements(self) -> int:
        """Lookups for one sample: elements of the output, batch left out."""
        return math.prod(d for d in list(self.output.shape or [])[1:] if isinstance(d, int))

    @property
    def bootstraps_per_element(self) -> int:
        """Programmable bootstraps of one lookup: one, and one for each bit that exact rounding removes."""
        return 1 + (self.lsbs_to_remove if self.is_rounded_exactly else 0)

    @property
    def bootstraps(self) -> int:
        """Programmable bootstraps for one sample."""
        return self.elements * self.bootstraps_per_element

    def per_channel(self, values: np.ndarray, rank: int) -> np.ndarray:
        """``values`` (channels) shaped to broadcast along the channels of a tensor of ``rank`` axes."""
        return along_axis(values, self.axis, rank)

    def channel_of_elements(self, shape: Sequence[int]) -> np.ndarray:
        """The channel of every element of a tensor of this shape (batch counted), as int64; read-only."""
        return np.broadcast_to(self.per_channel(np.arange(self.channels), len(shape)), tuple(shape))

    def set_tables(self, entries: ir.Value, first: ir.Value) -> None:
        """Give the node other tables: (channels, size) and (channels), initializers."""
        self.node.replace_input_with(1, entries)
        self.node.replace_input_with(2, first)

    def set_step(self, step: int) -> None:
        """Record the distance of two neighbouring inputs."""
        self.node.attributes["step"] = ir.AttrInt64("step", step)

    def set_axis(self, axis: int) -> None:
        """Record the axis of the channels."""
        self.node.attributes["axis"] = ir.AttrInt64("axis", axis)

    def set_p_error(self, p_error: float | None) -> None:
        """Record the tolerated error of one lookup; None takes the record away."""
        if p_error is None:
            self.node.attributes.pop("p_error", None)
        else:
            self.node.attributes["p_error"] = ir.AttrFloat32("p_error", p_error)

    def check_rounding(self) -> None:
        """Check that the tables lie on the grid that the rounding in front of them leaves.

        Raises:
            VerificationError: ``step`` is not the unit of the rounding, or ``first`` is no multiple of it.
        """
        if self.rounding is None:
            return
        unit = self.rounding.unit
        where = {"node": self.name, "op": self.op_type}
        if unit != self.step:
            raise VerificationError(
                "the step of a table is not that of its rounding",
                found=str(self.step),
                allowed=str(unit),
                **where,
            )
        if (self.first % unit).any():
            raise VerificationError(
                "a table begins off the grid of its rounding",
                found=f"step {unit}",
                allowed="multiples of it",
                **where,
            )

    @classmethod
    def make(
        cls,
        index: ir.Value,
        entries: ir.Value,
        first: ir.Value,
        *,
        step: int = 1,
        axis: int = 1,
        name: str | None = None,
    ) -> ir.Node:
        """A node that looks ``index`` up: ``entries`` (channels, size), ``first`` (channels), constants."""
        return cls._node([index, entries, first], {"step": step, "axis": axis}, name)

    @property
    def _table_shape(self) -> tuple[int, int]:
        channels, size = constant_input(self.node, 1).shape.numpy()
        return channels, size
