"""The quantizers of what the client encrypts: which features have which scales, and what they lose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import linear_of
from ...analysis.regions.regions import Regions
from ...ir.placement import is_public
from . import offsets, scales
from .activations import Quantizer, fit_quantizer, some_rows, to_powers_of_two
from .bits import common_bits
from .inputs import Features, fit_features
from .settings import QuantizationSettings

TOLD_LOSS_SHARE = 0.02
"""Share of a feature's variance lost by quantizing from which on a note names the feature."""
MAX_NAMED_FEATURES = 8
"""Features that a note names."""


@dataclass(frozen=True)
class ClientInputs:
    """Chooses quantizers of encrypted inputs.

    Attributes:
        options: What was asked for.
        regions: What runs encrypted.
        values: Values of the float model: encrypted inputs, and what the layers that read them put out.
        notes: Are told what features lose.
    """

    options: QuantizationSettings
    regions: Regions
    values: Mapping[ir.Value, np.ndarray]
    notes: list[str]

    def fit(self, value: ir.Value, beside: bool) -> Quantizer:
        """The quantizer of an input, with a scale for each feature where the weights that follow absorb it.

        Args:
            value: What is encrypted.
            beside: Whether it is laid beside tensors whose scales are absorbed, so that its own has to be.
        """
        options, array = self.options, self.values[value]
        bits = common_bits(options, self.regions, [value])
        if is_public(value):
            return fit_quantizer(array, bits, "min-max", options.percentile, per_channel=False)
        quantizer = fit_quantizer(array, bits, options.calibration, options.percentile, per_channel=False)
        shape, columns = scales.features_of(value, self.regions), array.reshape(-1, 1)
        if shape is not None:
            columns = _columns(array, shape)
            readers = scales.absorbers(value, self.regions, shape=shape) or []
            takes = all(
                offsets.vanishes(layer, path, value, shape)
                for reader, path in readers
                if (layer := linear_of(reader)) is not None
            )
            features = Features(columns, self._importance(readers, columns), takes, shape)
            quantizer = fit_features(features, quantizer, options.calibration)
        if len(quantizer.scale) > 1 or quantizer.offset is not None or beside:
            quantizer = replace(quantizer, absorbed=True)
        if options.scales == "power-of-two":
            quantizer = to_powers_of_two(quantizer, columns, options.calibration == "mse")
        return quantizer

    def tell(self, value: ir.Value, quantizer: Quantizer) -> None:
        """Name the features of an input that its quantizer makes constant, or of which it keeps little."""
        array, name = self.values[value], value.name
        if quantizer.offset is not None:
            known = np.flatnonzero(quantizer.scale == 0)
            if known.size and known.size < len(quantizer.scale):
                self._note(
                    f"quantize: {_named(known)} of {name!r} never {'vary' if known.size > 1 else 'varies'} on"
                    " calibration data: the circuit takes such a feature for what it was there, whatever is"
                    " encrypted"
                )
        if array.ndim < 2 or len(quantizer.scale) > 1 or quantizer.offset is not None:
            return
        axis = array.ndim - 1 if array.ndim == 3 else 1
        sample = some_rows(np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]))
        variance = sample.var(axis=0)
        lost = (quantizer.apply(sample) - sample).var(axis=0)
        poor = np.flatnonzero((variance > 0) & (lost > TOLD_LOSS_SHARE * variance))
        if not poor.size or scales.features_of(value, self.regions) is not None:
            return
        readers = [n for n in value.consumers() if n in set(self.regions.server)]
        node = next((n for n in readers if linear_of(n) is None), readers[0] if readers else None)
        reads = f"{node.name} ({node.op_type})" if node is not None else "what follows"
        self._note(
            f"quantize: {_named(poor)} of {name!r} {'keep' if poor.size > 1 else 'keeps'} few of the"
            f" {quantizer.top + 1} levels, for all features have one scale where {reads} reads them; give"
            " features of one size to the network, or let linear layers alone read them"
        )

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _importance(
        self, readers: Sequence[tuple[ir.Node, Sequence[ir.Node]]], columns: np.ndarray
    ) -> np.ndarray:
        """What an error of each feature counts in what the layers that read it put out (``Features``)."""
        variance = columns.var(axis=0, dtype=np.float64)
        total = np.zeros(len(variance))
        for reader, path in readers:
            linear = linear_of(reader)
            assert linear is not None
            squares = linear.matrix() ** 2
            channels = squares.reshape(linear.groups, len(squares) // linear.groups, -1)
            if linear.node.op_type == "Conv":
                kernel = math.prod(linear.shape[2:])
                channels = channels.reshape(*channels.shape[:2], -1, kernel).sum(axis=-1)
            if path or channels.shape[0] * channels.shape[2] != len(variance):
                # With layout between, each feature counts the same, by what it varies.
                total += 1 / np.where(variance > 0, variance, np.inf)
                continue
            found = self.values[reader.outputs[0]].astype(np.float64)
            spread = np.moveaxis(found, linear.channel_axis, -1).reshape(-1, linear.channels).var(axis=0)
            spread = np.where(spread > 0, spread, np.inf).reshape(channels.shape[:2])
            total += (channels / spread[..., None]).sum(axis=1).reshape(-1)
        return total


def _columns(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A tensor as (rows, features), with a feature for each element of ``shape``."""
    kept = [i for i, d in enumerate(shape) if d > 1]
    moved = np.moveaxis(array, kept, range(array.ndim - len(kept), array.ndim))
    return np.ascontiguousarray(moved).reshape(-1, math.prod(shape))


def _named(features: np.ndarray) -> str:
    shown = ", ".join(str(f) for f in features[:MAX_NAMED_FEATURES])
    more = f" and {len(features) - MAX_NAMED_FEATURES} more" if len(features) > MAX_NAMED_FEATURES else ""
    return f"{'features' if len(features) > 1 else 'feature'} {shown}{more}"
