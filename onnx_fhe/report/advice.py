"""What to change to go faster, or to lose less: rules, with numbers from the cost model on this network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from ..manifest import Manifest
from ..passes.compress.remove_neurons.remove_neurons import RemoveNeurons
from ..passes.quantize.quantize import Quantize
from ..passes.round.insert_rounding.insert_rounding import InsertRounding
from . import text
from .layers import Layer, Range
from .pricing import Pricing, fewer
from .suggestion import Advice, changed_pass

MIN_TOLD_SAVING = 0.02
"""Share of the time that a piece of advice has to save to be given."""

CHEAP_TABLE_BITS = 5
"""Tables of more bits cost several times as much."""

MAX_PIECES = 6
"""Pieces of advice that are given, the best first."""

HARMLESS_CHANGE = 0.01
"""Share of predictions that errors may change and still be called harmless."""

TOLD_VARIANCE_LOSS = 0.003
"""Share of its variance that a layer has to lose by itself to be mentioned."""

REMOVED_NEURON_SHARE = 0.25
"""Share of the neurons of a layer for whose removal the saving is computed."""


def advice(
    layers: Sequence[Layer], ranges: Sequence[Range], manifest: Manifest, pricing: Pricing
) -> tuple[Advice, ...]:
    """What is worth trying, the largest saving first, and then what is about accuracy."""
    if not sum(x.seconds for x in layers):
        return ()
    found = Rules(tuple(layers), tuple(ranges), manifest, pricing).all()
    worth = sorted((a for a in found if a.share >= MIN_TOLD_SAVING), key=lambda a: -a.seconds)
    return (*worth[:MAX_PIECES], *_worst(layers, manifest))


@dataclass(frozen=True)
class Rules:
    """The rules, and what they look at: see ``advice``."""

    layers: tuple[Layer, ...]
    ranges: tuple[Range, ...]
    manifest: Manifest
    pricing: Pricing

    def all(self) -> Iterator[Advice]:
        """What every rule has to say."""
        yield from self.maxima()
        yield from self.fewer_neurons()
        yield from self.unused_ranges()
        if self.manifest.results == "shared":
            return  # the rest rounds approximately, or tolerates errors
        yield from self.exact_rounding()
        yield from self.narrower_tables()
        yield from self.more_errors()

    def maxima(self) -> Iterator[Advice]:
        """Max-pooling: an average takes no bootstrap."""
        pools = tuple(x for x in self.layers if x.is_maximum and x.bootstraps)
        if not pools:
            return
        count, everything = sum(x.bootstraps for x in pools), sum(x.bootstraps for x in self.layers)
        costs = self.pricing.costs
        saved = self._saved(
            self.pricing.with_costs({i: fewer(costs[i], 0.0) for x in pools for i in x.costs})
        )
        yield Advice(
            "Average pooling instead of max-pooling",
            f"Maxima are {text.whole_percent(count / everything)} of the bootstraps ({text.count(count)} of"
            f" {text.count(everything)}). An average is a sum, which takes none: that would save {saved}.",
            "",
            *saved,
            count,
            "The network has to be trained, or tuned, with average pooling.",
            pools,
        )

    def exact_rounding(self) -> Iterator[Advice]:
        """Exact rounding: a bootstrap for every bit."""
        rounded = tuple(x for x in self.layers if x.exact and x.bootstraps > x.lookups)
        if not rounded:
            return
        extra = sum(x.bootstraps - x.lookups for x in rounded)
        seconds, _ = self.pricing.with_bits({x.name: x.table_bits for x in rounded})
        saved = self._saved(seconds)
        yield Advice(
            "Round approximately instead of exactly",
            f"Exact rounding takes a bootstrap for every bit that it removes: {text.count(extra)} of"
            f" {text.count(sum(x.bootstraps for x in self.layers))} bootstraps do nothing else."
            f" Without them the circuit saves {saved}.",
            changed_pass(self.manifest, InsertRounding(), mode="approximate"),
            *saved,
            extra,
            "Values close to the middle between two steps may take the other one.",
            rounded,
        )

    def narrower_tables(self) -> Iterator[Advice]:
        """Fewer bits in front of tables: all at once where they are alike, and where most is saved."""
        tables = [x for x in self.layers if x.table_bits > 2 and x.costs and not x.is_maximum]
        wide = sorted((x for x in tables if x.table_bits > CHEAP_TABLE_BITS), key=lambda x: -x.seconds)
        for layer in wide[:2]:
            yield self._to_bits((layer,), CHEAP_TABLE_BITS)
        others = tuple(x for x in tables if x.table_bits <= CHEAP_TABLE_BITS)
        if len(others) > 1 and len({x.table_bits for x in others}) == 1:
            yield self._to_bits(others, others[0].table_bits - 1)
        if others:
            slowest = max(others, key=lambda x: x.seconds)
            yield self._to_bits((slowest,), slowest.table_bits - 1)

    def _to_bits(self, layers: tuple[Layer, ...], bits: int) -> Advice:
        first = layers[0]
        if len(layers) == 1:
            title, subject = f"Round to {bits} bits before {text.name(first.name)}", "Its tables take"
            options: dict[str, Any] = {"layers": {first.name: bits}}
        else:
            title, subject = f"Round to {bits} bits everywhere", f"The tables of {len(layers)} layers take"
            options = {"bits": bits}
        then, _ = self.pricing.with_bits({x.name: bits for x in layers})
        saved = self._saved(then)
        cliff = (
            " Past 5 bits a bootstrap costs several times as much."
            if first.table_bits > CHEAP_TABLE_BITS
            else ""
        )
        return Advice(
            title,
            f"{subject} {text.amount(first.table_bits, 'bit')}. Rounding to {bits} would cut the circuit from"
            f" {text.seconds(self.pricing.seconds)} to {text.seconds(then)}.{cliff}",
            changed_pass(self.manifest, InsertRounding(), **options),
            *saved,
            sum(x.bootstraps - x.lookups for x in layers),
            "Activations get coarser steps: compile, and compare the accuracy.",
            layers,
        )

    def fewer_neurons(self) -> Iterator[Advice]:
        """A quarter of the neurons of the layer that takes longest."""
        known = [x for x in self.layers if (x.channels or 0) >= 4 and x.lookups and not x.is_maximum]
        if not known:
            return
        layer = max(known, key=lambda x: x.seconds)
        channels = layer.channels or 1
        gone, each = max(1, round(REMOVED_NEURON_SHARE * channels)), max(1, layer.lookups // channels)
        what, costs = "neuron" if each == 1 else "channel", self.pricing.costs
        saved = self._saved(
            self.pricing.with_costs({i: fewer(costs[i], 1 - gone / channels) for i in layer.costs})
        )
        # The pass counts in channels of the network as it was imported.
        ratio = 1 - (channels - gone) / max(channels, _imported(self.manifest, layer.name) or channels)
        yield Advice(
            f"Remove {text.amount(gone, what)} of {text.name(layer.name)}",
            f"The layer takes {text.whole_percent(layer.share)} of the time; each of its {channels} {what}s"
            f" takes {text.amount(each, 'bootstrap')}. A quarter of them less saves {saved}.",
            changed_pass(self.manifest, RemoveNeurons(), layers={layer.name: round(ratio, 3)}),
            *saved,
            gone * each,
            "What reads them is refitted on calibration data; compare the accuracy.",
            (layer,),
        )

    def unused_ranges(self) -> Iterator[Advice]:
        """Tables of which calibration data uses half or less: a bit for nothing."""
        used: dict[int, float] = {}
        for one in self.ranges:
            if one.observed is not None:
                used[one.layer] = max(used.get(one.layer, 0.0), one.observed[1] - one.observed[0])
        waste = {self.layers[i]: int(-math.log2(s) + 1e-9) for i, s in used.items() if 0 < s <= 0.5}
        found = {x: b for x, b in waste.items() if b and x.table_bits > b and not x.is_maximum}
        if not found:
            return
        then, _ = self.pricing.with_bits({x.name: x.table_bits - b for x, b in found.items()})
        saved = self._saved(then)
        sound = self.manifest.range_mode == "sound"
        yield Advice(
            "Declare narrower ranges",
            f"{text.amount(len(found), 'layer uses', 'layers use')} half of the declared range or less on the"
            f" data: up to {text.amount(max(found.values()), 'bit')} of a table that no sample reached. As"
            f" exact with fewer bits, the circuit saves {saved}.",
            "--range-mode observed" if sound else "--range-margin 0.1",
            *saved,
            0,
            "Inputs unlike the calibration data may overflow." if sound else "Less room for unusual inputs.",
            tuple(found),
        )

    def more_errors(self) -> Iterator[Advice]:
        """A larger p_error, where the noise model finds that it does no harm."""
        record = self.manifest.record
        measured = record.measured if record is not None else None
        noisy = {} if measured is None else {x.p_error: x for x in measured.stages if x.name == "encrypted"}
        loosest = max((p for p in noisy if p is not None), default=0.0)
        asked = self.manifest.p_error
        now, then = noisy.get(asked), noisy.get(loosest)
        if measured is None or asked is None or now is None or then is None or loosest <= asked:
            return
        if (
            now.agreement is None
            or then.agreement is None
            or now.agreement - then.agreement > HARMLESS_CHANGE
        ):
            return
        saved = self._saved(self.pricing.with_p_error(loosest))
        yield Advice(
            f"Tolerate one error in {text.count(1 / loosest)} lookups",
            f"With p_error {loosest:g} instead of {asked:g} the circuit saves {saved}. The noise model then"
            f" finds the class of the network for {text.percent(then.agreement)} of the samples, now for"
            f" {text.percent(now.agreement)}.",
            f"--p-error {loosest:g}",
            *saved,
            0,
            "Confirm with onnx-fhe run --mode simulate.",
        )

    def _saved(self, then: float) -> Saving:
        now = self.pricing.seconds
        return Saving(now - then, (now - then) / now)


class Saving(NamedTuple):
    """Seconds saved on one core, and their share of the whole."""

    seconds: float
    share: float

    def __str__(self) -> str:
        return f"{text.seconds(self.seconds)} ({text.whole_percent(self.share)})"


def _imported(manifest: Manifest, layer: str) -> int | None:
    """Channels of a layer in the network as it was imported."""
    nodes = manifest.record.nodes if manifest.record is not None else ()
    shape = next((n.shape for n in nodes if n.name == layer and len(n.shape) > 1), (None, None))
    return shape[1] if isinstance(shape[1], int) else None


def _worst(layers: Sequence[Layer], manifest: Manifest) -> Iterator[Advice]:
    """The layer where most is lost between it and the one before: more bits of weights cost no bootstrap."""
    known = [x for x in layers if x.divergence is not None]
    steps = [(b, (b.divergence or 0) - (a.divergence or 0)) for a, b in pairwise(known)]
    steps = [
        (x, step) for x, step in steps if step >= TOLD_VARIANCE_LOSS and x.weight_bits and x.weight_bits < 8
    ]
    if not steps:
        return
    layer, step = max(steps, key=lambda s: s[1])
    bits = (layer.weight_bits or 0) + 1
    yield Advice(
        f"{bits} bits for the weights of {text.name(layer.name)}",
        f"Its outputs diverge by {text.percent(layer.divergence or 0)} of their variance,"
        f" {text.percent(step)} more than those of the layer before. Its weights have"
        f" {text.amount(layer.weight_bits or 0, 'bit')}. Wider ones take no more bootstraps,"
        " but larger ones make those before them cost a little more.",
        changed_pass(manifest, Quantize(), layers={layer.name: {"weights": bits}}),
        layers=(layer,),
    )
