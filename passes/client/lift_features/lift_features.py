"""``lift-features``: the network becomes public features of the input, and a readout that runs encrypted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ....analysis.outputs.classes import Kind, computed, kind_of, scores
from ....analysis.regions.region_analysis import nothing_to_encrypt
from ....analysis.regions.server import server_nodes
from ....ir.runtime import Session
from ...framework.base import Context, Pass
from .feature_options import FeatureOptions
from .writing import write_student


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

        search, chosen = self.searched(model, answers, _kind(model, targets, data), context)
        write_student(model, search, chosen, targets)
        return True


def _kind(model: ir.Model, targets: Sequence[ir.Value], data: Mapping[str, np.ndarray]) -> Kind:
    """Whether what is read out tells classes apart: where its largest is that of the network's scores."""
    asked = scores(model)
    if len(targets) != 1 or len(asked) != 1:
        return "values"
    names = [str(v.name) for v in (asked[0], targets[0])]
    found = Session(model, list(dict.fromkeys(names))).run_batched(data)
    said, read = (found[n] for n in names)
    if kind_of([said], asked, computed(model)) == "values" or read.shape != said.shape:
        return "values"
    return "classes" if np.array_equal(read.argmax(axis=1), said.argmax(axis=1)) else "values"


def leaving(server: set[ir.Node]) -> list[ir.Value]:
    """What the encrypted part hands to the client."""
    found: list[ir.Value] = []
    for node in server:
        for value in node.outputs:
            if value.is_graph_output() or any(reader not in server for reader in value.consumers()):
                found.append(value)
    return found
