"""Seconds, for the report: of the circuit, of each layer, and of the circuit as it might be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ..analysis.cost.bootstrap import USUAL
from ..analysis.cost.cost import CostEstimate, estimate
from ..analysis.cost.lookup_cost import LayerCost
from ..analysis.widths.layers import layer_of
from ..backends.lookups import read_lookup
from ..ir.dialect import DOMAIN
from ..ir.graph import is_dialect
from ..machine import Prediction, Profile, predict
from ..manifest import Manifest


class Pricing:
    """What a circuit takes on a machine, and what changes to it would save.

    The whole is predicted from the parameters that Concrete chose; the cost model says how it is spread over
    the layers, and what another circuit would take in relation.

    Args:
        model: Integer level.
        manifest: Of the artifact.
        profile: Of the machine; by default this one's.

    Attributes:
        costs: The tables of the model, in order.
        prediction: Of the whole.
        seconds: Of the whole on one core.
    """

    def __init__(self, model: ir.Model, manifest: Manifest, profile: Profile | None = None) -> None:
        self._profile = profile or Profile.here()
        self._model = model
        found = manifest.statistics
        p_error = manifest.p_error if manifest.p_error is not None else found.p_error
        self._estimate: CostEstimate = estimate(model, p_error or USUAL)
        self.costs: tuple[LayerCost, ...] = self._estimate.layers
        # A backend without a cost of its own is priced as if Concrete were asked.
        known = found if found.complexity else self._estimate
        self.prediction: Prediction = predict(known, self._profile)
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
    for node in list(copy.graph):
        wanted = bits.get(layer_of(node)[0]) if is_dialect(node, "TableLookup") else None
        if wanted is None:
            continue
        lookup = read_lookup(node)
        more = max(0, lookup.table_bits - wanted)
        rounds = ir.node(
            "RoundBits",
            [lookup.source],
            {"lsbs_to_remove": lookup.lsbs_to_remove + more, "mode": "approximate"},
            domain=DOMAIN,
            name=f"{node.name}_narrowed",
        )
        made = rounds.outputs[0]
        made.name, made.shape, made.type = (
            f"{node.name}_narrowed_out",
            lookup.source.shape,
            lookup.source.type,
        )
        thinned = lookup.tables[:, :: 1 << more].astype(np.float32)
        values = ir.Value(
            name=f"{node.name}_narrowed_values",
            const_value=ir.tensor(thinned),
            shape=ir.Shape(thinned.shape),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        copy.graph.register_initializer(values)
        copy.graph.insert_before(node, rounds)
        node.replace_input_with(0, made)
        node.replace_input_with(1, values)
        node.attributes["step"] = ir.AttrInt64("step", lookup.step << more)
    return copy
