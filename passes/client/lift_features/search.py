"""Which features a readout is taken of: families and sizes, compared on inputs that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add

import numpy as np
import onnx_ir as ir

from ....analysis.outputs.classes import Kind
from ....ir.editing import GraphEditor
from ....ir.opsets import target_ir_version, target_opset
from ....ir.runtime import Session
from ...framework.base import Progress
from .candidates import Candidate, candidates, columns
from .families import Family, FeatureWriter
from .judging import Asked
from .readout import QUANTIZATION_STEP, Readout, Sums
from .samples import Answers, Part, parted
from .statistics import InputStatistics, describe, typical_distance

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
"""Ridge penalties that are tried, over the mean variance of a feature."""
LOSS_PER_HALVING = 0.006
"""Loss (of accuracy, or of R^2) that half the features may cost where none hold what is allowed: each is a
value to encrypt and to send."""
FIRST_ROUND_FEATURES = 256
"""Features that are drawn of every family at first."""
FIRST_ROUND_HALVINGS = 4
"""A family is looked at further where it loses no more than the best and what so many halvings may cost."""
HIGH_QUANTILE = 0.999
"""Share of a drawn tensor's elements that are scaled to at most 1."""
SCALED_BY = 200
"""Inputs whose features the scales of drawn tensors are taken from."""


@dataclass(frozen=True)
class Chosen:
    """Features and what is read out of them.

    Attributes:
        family: The features.
        scales: What each drawn tensor is divided by.
        count: Features in all.
        penalty: Of the ridge regression.
        loss: Of accuracy (or of R^2), on given inputs and on made ones, each half.
        asked: Given inputs, each asked of a readout that was not fitted to it, its weights rounded to the
            nearest integers, which is a little worse than what ``quantize`` makes of them.
        sums: Of all samples and of all features of the largest relative.
        columns: Which of those the features are.
    """

    family: Family
    scales: tuple[float, ...]
    count: int
    penalty: float
    loss: float
    asked: Asked
    sums: Sums
    columns: np.ndarray

    def readout(self) -> Readout:
        """The readout, fitted to all samples."""
        return self.sums.fit(self.penalty, self.columns)


@dataclass(frozen=True)
class FeatureSearch:
    """Looks for few features of the inputs from which the answers can be read.

    Attributes:
        inputs: Graph inputs.
        data: Typical inputs by name.
        answers: What the network says of inputs.
        kind: Kind of the answers.
        allowed: Most accuracy (or R^2) that may be lost: the fewest features that hold it are taken.
        most: Features that are drawn at most.
        only: The one family to try; ``auto`` for all.
        seed: Of the features and of all other chance.
        progress: Called with (what, done, total).
    """

    inputs: Sequence[ir.Value]
    data: Mapping[str, np.ndarray]
    answers: Answers
    kind: Kind
    allowed: float
    most: int
    only: str
    seed: int
    progress: Progress

    @cached_property
    def known(self) -> list[InputStatistics]:
        """What is known of the inputs."""
        return describe(self.inputs, self.data)

    @cached_property
    def distance(self) -> float:
        """Typical distance of two samples."""
        flat = [k.standardised(np.asarray(self.data[k.name])) for k in self.known]
        return typical_distance(np.concatenate(flat, axis=1), self.seed)

    @cached_property
    def parts(self) -> list[Part]:
        """Samples to fit to and to judge by."""
        return parted(self.data, self.answers, self.seed)

    @property
    def width(self) -> int:
        """Numbers that a sample of all inputs is made of."""
        return sum(k.width for k in self.known)

    def run(self) -> list[Chosen]:
        """All that was looked at; nothing where no family takes such inputs.

        Few features of every family are looked at first, and more of those that do nearly best where none
        of them holds the loss that is allowed.
        """
        found = self._round(candidates(self.known, min(self.most, FIRST_ROUND_FEATURES), self.only))
        if found and self.most > FIRST_ROUND_FEATURES and not any(self._holds(c) for c in found):
            limit = min(map(_price, found)) + LOSS_PER_HALVING * FIRST_ROUND_HALVINGS
            near = {_kind(c.family) for c in found if _price(c) <= limit}
            larger = candidates(self.known, self.most, self.only)
            found += self._round([c for c in larger if _kind(c.family) in near], found)
        return found

    def best(self, found: Sequence[Chosen]) -> Chosen:
        """The fewest features that hold the loss that is allowed, else those that lose about least."""
        holding = [c for c in found if self._holds(c)]
        return min(holding, key=lambda c: (c.count, c.loss)) if holding else min(found, key=_price)

    def _holds(self, chosen: Chosen) -> bool:
        """Whether given inputs are expected to lose no more than is allowed."""
        return chosen.asked.loss(self.kind) <= self.allowed

    def _round(self, tried: Sequence[Candidate], known: Sequence[Chosen] = ()) -> list[Chosen]:
        """Look at some candidates, but at no size that is ``known``."""
        seen = {c.family for c in known}
        left = []
        for one in tried:
            sizes = tuple(s for s in one.sizes if replace(one.family, size=s) not in seen)
            left += [replace(one, sizes=sizes)] if sizes else []
        found: list[Chosen] = []
        for number, candidate in enumerate(left):
            self.progress("lift-features", number, len(left))
            found += self._look(candidate)
        self.progress("lift-features", len(left), len(left))
        return found

    def _look(self, candidate: Candidate) -> list[Chosen]:
        """A family in all its sizes."""
        scales = self._scales(candidate.family)
        session = Session(self.model(candidate.family, scales))
        sums, kept = [], []
        for part in self.parts:
            features = next(iter(session.run_batched(part.inputs).values()))
            sums.append(Sums.of(features, part.answers))
            kept.append([_quantized(features[rows]) for rows in part.asked])
        whole = reduce(add, sums)
        found = []
        for size in candidate.sizes:
            chosen = columns(self.known, candidate.family, size)

            def ask(number: int, readout: Readout, chosen: np.ndarray = chosen) -> list[Asked]:
                """Given and made inputs of one part."""
                part = self.parts[number]
                return [
                    Asked(part.answers[rows], readout(features[:, chosen]))
                    for rows, features in zip(part.asked, kept[number], strict=True)
                ]

            first = {p: (whole - sums[0]).fit(p, chosen) for p in PENALTIES}
            lost = {p: sum(a.loss(self.kind) for a in ask(0, readout)) for p, readout in first.items()}
            penalty = min(PENALTIES, key=lost.__getitem__)
            others = ((whole - of_part).fit(penalty, chosen) for of_part in sums[1:])
            readouts = [first[penalty], *others]  # each was fitted to all parts but the one of its number
            parts = [ask(n, readout) for n, readout in enumerate(readouts)]
            given, made = (Asked.together(several) for several in zip(*parts, strict=True))
            loss = given.loss(self.kind) / 2 + (made if len(made.wanted) else given).loss(self.kind) / 2
            given = Asked.together([ask(n, readout.rounded())[0] for n, readout in enumerate(readouts)])
            family = replace(candidate.family, size=size)
            found.append(Chosen(family, scales, len(chosen), penalty, loss, given, whole, chosen))
        return found

    def _scales(self, family: Family) -> tuple[float, ...]:
        """What to divide each drawn tensor by: cosines and bins are within [-1, 1] as they are."""
        if family.name != "convolutions":
            return tuple(1.0 for _ in range(family.name != "inputs"))
        few = {k: np.asarray(v)[:SCALED_BY] for k, v in self.data.items()}
        images = [k for k in self.known if k.image is not None]
        drawn = Session(self.model(family, (1.0,) * len(images))).run_batched(few)
        features = next(iter(drawn.values()))
        before = len(columns(self.known, Family("inputs", inputs=family.inputs), 0))
        blocks = np.array_split(features[:, before:], len(images), axis=1)
        return tuple(float(np.quantile(np.abs(b), HIGH_QUANTILE)) or 1.0 for b in blocks)

    def model(self, family: Family, scales: Sequence[float]) -> ir.Model:
        """A model that computes the features, and nothing else."""
        inputs = [ir.Value(name=v.name, type=v.type, shape=v.shape) for v in self.inputs]
        graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": target_opset()}, name="features")
        model = ir.Model(graph, ir_version=target_ir_version())
        graph.outputs.append(self.write(GraphEditor(model).at(None), inputs, family, scales))
        return model

    def write(
        self, editor: GraphEditor, inputs: Sequence[ir.Value], family: Family, scales: Sequence[float]
    ) -> ir.Value:
        """Write the nodes of the features where ``editor`` stands; returns what they make."""
        writer = FeatureWriter(editor, inputs, self.known, self.distance, self.seed)
        return writer.write(family, scales)


def _price(chosen: Chosen) -> float:
    """Loss, and what the features cost in the same unit."""
    return chosen.loss + LOSS_PER_HALVING * float(np.log2(chosen.count))


def _kind(family: Family) -> Family:
    """All sizes of a family as one; bins of several sizes are several kinds."""
    return family if family.name == "bins" else replace(family, size=0)


def _quantized(features: np.ndarray) -> np.ndarray:
    """Features as they are encrypted, with 8 bits."""
    return np.asarray(np.rint(features / QUANTIZATION_STEP) * QUANTIZATION_STEP, np.float32)
