"""Seconds, for the report: of the circuit, of each layer, and of the circuit as it might be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from ..analysis.cost.cost import CostEstimate, estimate
from ..analysis.cost.lookup_cost import LayerCost
from ..ir.ops import RoundBits, TableLookup
from ..ir.p_error import DEFAULT_P_ERROR
from ..machine import Prediction, Profile, predict
from ..manifest import Manifest


class Pricing:
    """What a circuit takes on a machine, and what changes to it would save.

    The whole is predicted from the parameters that Concrete chose; the cost model says how it is spread over
    the layers, and what another circuit would take in relation.

    Args:
        model: Integer level.
        manifest: Manifest of the artifact.
        profile: Profile of the machine; by default this one's.

    Attributes:
        costs: The tables of the model, in order.
        prediction: What is predicted of the whole.
        calls: What is predicted of a call, by the samples that it takes: one, and what batch circuits take.
        seconds: Time of the whole on one core.
    """

    def __init__(self, model: ir.Model, manifest: Manifest, profile: Profile | None = None) -> None:
        self._profile = profile or Profile.here()
        self._model = model
        found = manifest.statistics
        p_error = manifest.p_error if manifest.p_error is not None else found.p_error
        self._estimate: CostEstimate = estimate(model, p_error or DEFAULT_P_ERROR)
        self.costs: tuple[LayerCost, ...] = self._estimate.layers
        # A backend without a cost of its own is priced as if Concrete were asked.
        known = found if found.complexity else self._estimate
        self.prediction: Prediction = predict(known, self._profile)
        self.calls: dict[int, Prediction] = {1: self.prediction} | {
            b.samples: predict(found, self._profile, batch=b.samples) for b in manifest.batches
        }
        self.seconds = self.prediction.core_seconds
        modelled = sum(self._each(self._estimate))
        self._scale = self.seconds / modelled if modelled else 1.0

    def times(self) -> list[float]:
        """Seconds of each of ``costs``, on one core; together the predicted whole."""
        return [s * self._scale for s in self._each(self._estimate)]

    def with_costs(self, changes: Mapping[int, LayerCost]) -> float:
        """Seconds on one core with other entries of ``costs``, by index."""
        layers = tuple(changes.get(i, c) for i, c in enumerate(self.costs))
        return self._whole(replace(self._estimate, layers=layers))

    def with_bits(self, bits: Mapping[str, int]) -> tuple[float, int]:
        """Seconds on one core, and bootstraps, with narrower tables.

        Args:
            bits: Bits that reach the tables of a layer, by its name; rounding becomes approximate.
        """
        found = estimate(narrowed(self._model, bits), self._estimate.p_error)
        return self._whole(found), found.bootstraps

    def with_p_error(self, p_error: float) -> float:
        """Seconds on one core with another tolerated error."""
        return self._whole(estimate(self._model, p_error))

    def _whole(self, found: CostEstimate) -> float:
        return self._scale * sum(self._each(found))

    def _each(self, found: CostEstimate) -> list[float]:
        return [self._profile.timings.seconds((step,)) for step in found.steps]


def fewer(cost: LayerCost, share: float) -> LayerCost:
    """A layer with this share of its tables."""
    return replace(cost, bootstraps=round(cost.bootstraps * share), lookups=round(cost.lookups * share))


def narrowed(model: ir.Model, bits: Mapping[str, int]) -> ir.Model:
    """A copy of an integer-level model whose tables take fewer bits, as the cost model sees them.

    What the tables hold is thinned out, not computed anew: it is no network to run.

    Args:
        model: Integer level; not changed.
        bits: By name of the layer; tables that take no more already stay, but are rounded approximately.
    """
    copy = model.clone()
    for lookup in TableLookup.all_in(copy):
        wanted = bits.get(lookup.title[0])
        if wanted is None:
            continue
        source, step, name = lookup.source, lookup.step, lookup.name
        more = max(0, lookup.table_bits - wanted)
        rounds = RoundBits.make(
            source,
            lsbs_to_remove=lookup.lsbs_to_remove + more,
            mode="approximate",
            name=f"{name}_narrowed",
        )
        made = rounds.outputs[0]
        made.name, made.shape, made.type = f"{name}_narrowed_out", source.shape, source.type
        thinned = lookup.entries[:, :: 1 << more]
        values = ir.Value(
            name=f"{name}_narrowed_values",
            const_value=ir.Tensor(thinned),
            shape=ir.Shape(thinned.shape),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        copy.graph.register_initializer(values)
        first = lookup.node.inputs[2]
        assert first is not None
        copy.graph.insert_before(lookup.node, rounds)
        lookup.node.replace_input_with(0, made)
        lookup.set_tables(values, first)
        lookup.set_step(step << more)
    return copy
