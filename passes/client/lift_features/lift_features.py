"""``lift-features``: the network becomes public features of the input, and a readout that runs encrypted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ....analysis.outputs.classes import Kind, kind_of
from ....analysis.regions.region_analysis import nothing_to_encrypt
from ....analysis.regions.server import server_nodes
from ....ir.errors import DataError
from ....ir.level import Level
from ....ir.runtime import Session
from ...framework.base import Context, Pass, option
from .judging import answers as answers_of
from .samples import FOLDS
from .samples import Answers as AnswersOf
from .search import Chosen, FeatureSearch
from .writing import write_student

MIN_SAMPLES = 40
"""Samples to fit a readout to, and to judge it by."""


@dataclass(frozen=True)
class FeatureOptions:
    """The options of passes that read answers out of features, and what they share."""

    family: Literal["auto", "inputs", "cosines", "convolutions", "bins"] = option(
        "auto",
        help="Features to draw: cosines of random directions, averages of random filters (images), bins and"
        " products of two (few features), or none beside the inputs; auto: what loses least on inputs held"
        " back.",
    )
    loss: float = option(
        0.01,
        help="Most accuracy that may be lost, as expected by inputs that nothing was fitted to; for values"
        " twice that of R^2. The fewest features that hold it are taken, else those that lose about least.",
        low=0,
        high=1,
    )
    features: int = option(2048, help="Features to draw at most.", low=1, high=65536)
    seed: int = option(
        1, help="Seed of the features: the client draws the same again from it.", low=0, high=2**30
    )

    def enough(self, context: Context) -> Mapping[str, np.ndarray]:
        """The calibration data.

        Raises:
            DataError: There is none, or too little.
        """
        data = context.require_calibration("lift-features")
        total = len(next(iter(data.values())))
        if total < MIN_SAMPLES:
            raise DataError(
                "features cannot be fitted to so few samples",
                found=f"{total} samples",
                allowed=f"{MIN_SAMPLES} or more; a few hundred are usual",
                do="give more calibration inputs; they need no labels",
            )
        return data

    def searched(
        self, model: ir.Model, answers: AnswersOf, kind: Kind, context: Context
    ) -> tuple[FeatureSearch, Chosen]:
        """Look for features of the inputs of ``model`` from which the answers can be read, and tell."""
        data = self.enough(context)
        search = FeatureSearch(
            [v for v in model.graph.inputs if v.name in data],
            data,
            answers,
            kind,
            self.loss if kind == "classes" else 2 * self.loss,
            self.features,
            self.family,
            self.seed,
            context.progress,
        )
        chosen, found = search.run()
        context.notes.append(_note(chosen, found, kind))
        context.findings.expected.append(answers_of(chosen.asked, kind, FOLDS).expectation)
        return search, chosen


@dataclass(frozen=True)
class LiftFeatures(FeatureOptions, Pass):
    """Replace the encrypted part by a linear function of features that the client computes.

    The features are fixed functions of the input, drawn by chance from a seed: the client half holds the
    seed, means and spreads of the inputs, and nothing of the network. What is read out of them is fitted to
    the network's own answers, on calibration inputs and on mixtures of them (Rahimi and Recht, Random
    features for large-scale kernel machines, 2007). The circuit has no bootstrap, and its client no
    evaluation keys to send; it encrypts more values.
    """

    name: ClassVar[str] = "lift-features"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ)
    produces: ClassVar[Level | None] = Level.FLOAT
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    def run(self, model: ir.Model, context: Context) -> bool:
        """Rewrite ``model`` in place.

        Raises:
            DataError: There is no calibration data, or too little.
            UnsupportedError: Nothing in the network would run encrypted.
        """
        data = self.enough(context)
        server = set(server_nodes(model))
        if not server:
            raise nothing_to_encrypt(model)
        targets = leaving(server)
        names = [str(v.name) for v in targets]
        session = Session(model, names)

        def answers(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            found = session.run_batched(inputs)
            return np.concatenate([found[n].reshape(len(found[n]), -1) for n in names], axis=1)

        said, outputs = answers(data), list(model.graph.outputs)
        kind = kind_of([said], targets, outputs) if len(targets) == 1 else "values"
        search, chosen = self.searched(model, answers, kind, context)
        write_student(model, search, chosen, targets)
        return True


def leaving(server: set[ir.Node]) -> list[ir.Value]:
    """What the encrypted part hands to the client."""
    found: list[ir.Value] = []
    for node in server:
        for value in node.outputs:
            if value.is_graph_output() or any(reader not in server for reader in value.consumers()):
                found.append(value)
    return found


def _note(chosen: Chosen, found: Sequence[Chosen], kind: Kind) -> str:
    lost = "accuracy" if kind == "classes" else "R^2"
    expected, best = chosen.asked.loss(kind), min(found, key=lambda c: c.asked.loss(kind))
    more = ""
    if best.asked.loss(kind) < expected:
        more = f"; {best.family} would lose {100 * best.asked.loss(kind):.1f}"
    own = f"computes {chosen.family}, which say nothing about the network, and " if chosen.family.size else ""
    lost = f"{100 * expected:.1f} points of {lost}"
    return (
        f"lift-features: the client {own}encrypts {chosen.count} values; the circuit reads the answers out of"
        f" them without a bootstrap. That is expected to lose {lost} before quantization{more}"
    )
