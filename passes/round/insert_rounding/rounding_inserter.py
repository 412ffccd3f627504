"""The walk of ``insert-rounding`` through the integer graph, with and without the rounding put in so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....analysis.environment import Environment
from ....analysis.noise.noise import noise_steps
from ....analysis.ranges.margins import TARGET_OVERFLOW_RATE
from ....analysis.ranges.ranges import SoundRanges, declare, over_axes
from ....analysis.ranges.tails import Extremes, distinct
from ....analysis.regions.linear import linear_of
from ....ir import intervals
from ....ir.errors import LimitError
from ....ir.graph import variable_inputs
from ....ir.integer_editing import IntegerEditor
from ....ir.interval_arithmetic import Bounds, Interval
from ....ir.ops import Decrypt, RoundBits, TableLookup
from ...framework.base import Context
from ...lower.outputs import read_shifted, restore
from .fill import exact_room, fill_range, merge_gains
from .lattice import Channel, Placed, Width, centred, width_for
from .memo import Fitted, Memo, Upstream
from .placing import place_all
from .rounding_setting import RoundingSetting
from .unrounded_reference import UnroundedReference, columns

MAX_TRIAL_CHANNELS = 512
"""Channels of all tables together past which a search chooses the places of their lattices among fewer."""
MAX_CHANNELS = 2048
"""Channels past which this is so for the final choice."""


class RoundingInserter:
    """One run of the pass.

    Args:
        model: Integer level; edited in place.
        data: Calibration inputs.
        context: Range mode and margin.
        settings: Bits and fill for each TableLookup; 0 bits leave it alone.
        mode: Mode of the RoundBits.
        output_bits: Bits of raw outputs that are decrypted; 0 for all.
        plain: The model without rounding on ``data``; run here where it is not given.
        memo: Memo of the search that this is only a trial of.
    """

    def __init__(
        self,
        model: ir.Model,
        data: Mapping[str, np.ndarray],
        context: Context,
        settings: Mapping[ir.Node, RoundingSetting],
        mode: str,
        output_bits: int,
        plain: UnroundedReference | None = None,
        memo: Memo | None = None,
    ) -> None:
        self.model, self.context, self.settings, self.mode = model, context, settings, mode
        self.output_bits = output_bits
        self.edit = IntegerEditor(model)
        self.sound = SoundRanges(model)
        self.plain = plain or UnroundedReference.of(model, data)
        self.rounded = Environment(model, data)
        self.modified = False
        self._samples, self._distinct = len(next(iter(data.values()))), distinct(data)
        declares = len(Decrypt.all_in(model)) + len(settings)
        self._target = TARGET_OVERFLOW_RATE / max(1, declares)
        channels = sum(TableLookup.of(t).channels for t, s in settings.items() if s.bits)
        self._rough = channels > (MAX_CHANNELS if memo is None else MAX_TRIAL_CHANNELS)
        # Bounds of what can happen at all, kept up on the way: anew for each table would be quadratic.
        self._bounds: dict[ir.Value, Bounds] = {}
        self._too_wide: LimitError | None = None
        self._restored: dict[ir.Node, ir.Value] = {}
        self._upstream, self._trial = Upstream(list(model.graph), settings), memo is not None
        self._memo = memo or Memo()

    def run(self) -> bool:
        """Round; returns whether anything changed."""
        nodes = list(self.model.graph)
        for index, node in enumerate(nodes):
            self.edit.at(node)
            inputs = list(node.inputs)
            asked = self.settings.get(node)
            lookup = TableLookup.match(node) if asked is not None else None
            if lookup is not None and lookup.rounding is not None:
                lookup = None  # it is rounded already
            if lookup is not None and asked is not None and asked.bits:
                nodes_of_layer = [*self._round(lookup, asked), node]
                self.rounded.step(nodes_of_layer)
                self._bound(nodes_of_layer)
            else:
                if (decrypt := Decrypt.match(node)) is not None:
                    self._outputs(decrypt)
                elif lookup is not None and self.modified:
                    self._cover(lookup, *self._range(lookup))
                self.rounded.step([node])
                self._bound([node])
                if node in self._restored:
                    self.rounded.step([self._restored[node].producer()])  # type: ignore[list-item]
                    self.rounded.moved(
                        node.outputs[0], self._restored[node], len(list(self._restored[node].uses()))
                    )
            self.rounded.read(inputs)
            self.context.progress("insert rounding", index + 1, len(nodes))
        if self.modified:
            RemoveUnusedNodesPass()(self.model)  # the unrounded tables, which may be a gigabyte
        return self.modified

    def _bound(self, nodes: list[ir.Node]) -> None:
        for node in nodes:
            if not variable_inputs(node) or Decrypt.match(node):
                continue
            try:
                found = intervals.interval_of(node, self._bounds)
            except LimitError as error:
                # Behind the last table it is the verifier's to say.
                self._too_wide = self._too_wide or error
                continue
            if found is not None:
                self._bounds.update(dict.fromkeys(node.outputs, found))

    def _declared(self, value: ir.Value, axes: Sequence[int], cells: int | None = None) -> Interval:
        """Bounds that the circuit promises for an accumulator behind rounded layers.

        Its channels lie along ``axes``; a table of so many ``cells`` reads it.
        """
        seen = None
        if self.context.ranges.mode == "observed":
            seen = Extremes.of(self.rounded[value], axes)
            if len(seen.low) == self._samples:
                seen = seen.take(self._distinct)
        return declare(self.sound.of(value), seen, self.context.ranges.margin, self._target, cells)

    def _round(self, table: TableLookup, setting: RoundingSetting) -> list[ir.Node]:
        """Rewrite one lookup; returns the nodes put in front of it."""
        key = self._upstream.key(table.node, setting)
        if key not in self._memo.known:
            self._memo.known[key] = self._fitted(table, setting)
        fitted: Fitted = self._memo.known[key]
        if fitted.width is None:
            self._cover(table, *fitted.range)
            return []
        if self._too_wide is not None:
            raise self._too_wide
        return self._rewrite(table, fitted.placed, fitted.gains, fitted.width)

    def _fitted(self, table: TableLookup, setting: RoundingSetting) -> Fitted:
        source, entries, starts, step = table.source, table.entries, table.first, table.step
        low, high = self._range(table, 2**setting.bits)
        width = width_for(int((high - low).max()), setting.bits)
        if not width.removed:
            if step == 1:
                return Fitted((low, high))
            width = Width(setting.bits + 1, 1)
        room = exact_room(self._bounds.get(source))
        width, gains = fill_range(source, high - low, width, setting.fill, room)
        x, wanted = (
            a if len(entries) > 1 else a.reshape(-1, 1)
            for a in (columns(self.rounded[source], table.axis), self.plain.entries[table.name])
        )
        channels = [
            Channel(int(low[c]), int(high[c]), int(starts[c]), entries[c], x[:, c], wanted[:, c], step)
            for c in range(len(entries))
        ]
        noise = noise_steps(self.context.target.p_error) if self.mode == "approximate" else 0.0
        placed = place_all(channels, width, gains.tolist(), noise, self._rough, self._trial)
        return Fitted((low, high), width, placed)

    def _range(self, table: TableLookup, cells: int | None = None) -> Interval:
        """Declared bounds, for each channel, of what a table of so many ``cells`` reads."""
        keep = [table.axis] if table.channels > 1 else []
        low, high = over_axes(self._declared(table.source, keep, cells), keep)
        return low.reshape(-1).astype(int), high.reshape(-1).astype(int)

    def _cover(self, table: TableLookup, low: np.ndarray, high: np.ndarray) -> None:
        """Let a table that stays unrounded hold what rounded layers in front of it now give: its range.

        A channel that never varied has a table of one entry, and may have moved.
        """
        entries, starts, step = table.entries, table.first, table.step
        if not self.modified or (np.all(low >= starts) and np.all(high <= starts + table.span)):
            return
        low = starts + (low - starts) // step * step  # an entry holds for the same neighbours as before
        inputs = low[:, None] + step * np.arange(int(((high - low) // step).max()) + 1)
        index = np.clip((inputs - starts[:, None]) // step, 0, table.size - 1).astype(int)
        moved = np.take_along_axis(entries, index, axis=1)
        constant, name = self.edit.constant, table.name
        table.set_tables(constant(f"{name}_moved_values", moved), constant(f"{name}_moved_first", low))

    def _rewrite(
        self, table: TableLookup, placed: Sequence[Placed], gains: np.ndarray, width: Width
    ) -> list[ir.Node]:
        source, name, axis = table.source, table.name, table.axis
        shape = [-1 if i == axis else 1 for i in range(len(source.shape or []))] if len(placed) > 1 else [1]
        offsets = np.array([p.offset for p in placed], np.float32)
        scaled = source
        if merge_gains(self.edit, source, gains, axis):
            self.rounded.values[source] = self.rounded[source] * gains.reshape(shape).astype(np.float32)
            self.sound.forget(source)
            self._bound([n for n in [source.producer()] if n is not None])
        else:
            scaled = self.edit.scaled(source, gains.reshape(shape), f"{name}_fill")
        shifted = self.edit.shifted(scaled, offsets.reshape(shape), f"{name}_offset")
        rounding = RoundBits.make(shifted, lsbs_to_remove=width.removed, mode=self.mode)
        rounded = self.edit.insert(rounding, f"{name}_round", source)
        new_table = self.edit.constant(f"{name}_rounded_values", np.stack([p.table for p in placed]))
        zeros = self.edit.constant(f"{name}_rounded_first", np.zeros(len(placed)))
        table.node.replace_input_with(0, rounded)
        table.set_tables(new_table, zeros)
        table.set_step(2**width.removed)
        self.modified = True
        made = dict.fromkeys(v.producer() for v in (scaled, shifted, rounded) if v is not source)
        return [n for n in made if n is not None]

    def _outputs(self, decrypt: Decrypt) -> None:
        """Declare a raw output anew behind rounded layers, and drop the bits of it that nobody needs.

        The mean shift that rounding made is taken out. A rounding in front of a Decrypt costs no bootstrap:
        its low bits are just not decrypted, which leaves more room for noise in all that comes before.
        """
        source = decrypt.input
        if not self.modified:
            return
        producer, rank = source.producer(), len(source.shape or [])
        linear = linear_of(producer) if producer is not None else None
        axis = linear.channel_axis % rank if linear is not None else 1
        gone = tuple(i for i in range(rank) if i != axis)
        wanted, found = self.plain.raw[decrypt.name].astype(np.float64), self.rounded[source]
        cells = 2**self.output_bits if self.output_bits else None
        key = self._upstream.key(decrypt.node, cells)
        if key not in self._memo.known:
            self._memo.known[key] = self._declared(source, [axis], cells)
        low, high = self._memo.known[key]
        low, high = np.floor(low.min(axis=gone, keepdims=True)), np.ceil(high.max(axis=gone, keepdims=True))
        width = width_for(int((high - low).max()), self.output_bits or 30)
        step = 2**width.removed
        if not width.removed:
            shift = np.rint((wanted - found).mean(axis=gone, keepdims=True))
            bounds = float((low + shift).min()), float((high + shift).max())
            self._compute(read_shifted(self.edit, decrypt, shift, bounds, part="correction"))
            return
        base = np.floor((width.top - (high - low)) / 2) - low
        seen = found.min(axis=gone, keepdims=True), found.max(axis=gone, keepdims=True)
        base = centred(base, low, high, seen, width)
        # Also the mean of what this rounding does: for a channel that hardly varies that is all there is.
        read = np.floor((found.astype(np.float64) + base) / step + 0.5) * step
        shift = np.rint((wanted - read).mean(axis=gone, keepdims=True))
        bounds = 0.0, float(2**width.bits - step)
        self._compute(read_shifted(self.edit, decrypt, base, bounds, lsbs_to_remove=width.removed))
        self._restored[decrypt.node] = restore(self.edit, decrypt, shift)

    def _compute(self, chain: list[ir.Value]) -> None:
        """Compute the new ones of a chain of values."""
        made = [p for v in dict.fromkeys(chain) if (p := v.producer()) in self.edit.made and p is not None]
        self.rounded.step([n for n in made if n.outputs[0] not in self.rounded.values])
