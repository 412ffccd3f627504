"""How much of a network its client computes: a choice of the owner, and what it reveals to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import onnx_ir as ir
from onnx_ir.passes import PassBase

from .ir.errors import UserError
from .passes.client.imitate import Imitate
from .passes.client.lift_features.feature_options import FeatureOptions
from .passes.client.lift_features.lift_features import LiftFeatures
from .passes.client.place import Place
from .passes.framework.manager import PassManager
from .passes.framework.pipeline import pass_name

ClientComputes = Literal["inputs", "features"]
"""What the client computes before it encrypts: what the inputs need alone, or public features of them too."""

SENTENCES = {
    "inputs": (
        "the client prepares and quantizes its inputs; of the network its half holds what comes before the"
        " first linear layer and behind the last one (scales, embeddings), and none of the layers between"
    ),
    "features": (
        "the client computes features of its inputs that were drawn by chance and say nothing about the"
        " network; of the network its half holds what comes behind the last linear layer alone"
    ),
    "until": (
        "the client computes the first layers of the network itself: whoever has the client half can read"
        " their weights"
    ),
    "from": (
        "the client computes the last layers of the network itself: whoever has the client half can read"
        " their weights, and decrypts what they are given, which tells more of the network than its outputs"
    ),
}
"""What each placement reveals to whom."""
_BEFORE = ("normalize", "import-qat")
"""Passes that bring a network to the form in which layers have the names that users know."""


@dataclass(frozen=True)
class ClientShare:
    """What of a network the client computes.

    Attributes:
        computes: Before it encrypts.
        imitated: Whether a student stands for the whole file.
        until: Nodes of the network that it computes before it encrypts, with all that they need.
        after: Nodes that it computes after it decrypts, with all that needs them.
    """

    computes: ClientComputes = "inputs"
    imitated: bool = False
    until: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @classmethod
    def chosen(
        cls, computes: str, until: Sequence[str], after: Sequence[str], imitate: bool = False
    ) -> ClientShare:
        """A share as a user asked for it.

        Raises:
            UserError: There is no such share.
        """
        if computes not in get_args(ClientComputes):
            raise UserError(
                "there is no such share of the client", found=repr(computes), allowed="inputs, features"
            )
        if (computes == "features" or imitate) and (until or after):
            raise UserError(
                "features stand for the whole network: there are no first or last layers beside them",
                found=f"{'imitate' if imitate else 'client features'} with client-until or client-from",
                allowed="one of them",
                do="leave one out",
            )
        names = [(n,) if isinstance(n, str) else tuple(n) for n in (until, after)]
        return cls("features" if computes == "features" else "inputs", imitate, names[0], names[1])

    @classmethod
    def of(cls, passes: Sequence[PassBase]) -> ClientShare:
        """The share that a pipeline makes."""
        placed = [p for p in passes if isinstance(p, Place)]
        return cls(
            "features" if any(isinstance(p, FeatureOptions) for p in passes) else "inputs",
            any(isinstance(p, Imitate) for p in passes),
            tuple(n for p in placed for n in p.client_until),
            tuple(n for p in placed for n in p.client_from),
        )

    def applied(self, manager: PassManager) -> PassManager:
        """The pipeline, with the passes of this share behind those that read the network."""
        if any(isinstance(p, FeatureOptions) for p in manager.passes):
            return manager
        if self.imitated:
            return PassManager([Imitate(), *manager.passes], manager.instruments)
        own: list[Any] = [LiftFeatures()] if self.computes == "features" else []
        if self.until or self.after:
            own.append(Place(client_until=self.until, client_from=self.after))
        if not own:
            return manager
        names = [pass_name(p) for p in manager.passes]
        place = max((names.index(n) + 1 for n in _BEFORE if n in names), default=0)
        passes = list(manager.passes)
        return PassManager([*passes[:place], *own, *passes[place:]], manager.instruments)

    def completed(self, manager: PassManager, model: ir.Model) -> PassManager:
        """The pipeline for ``model``, with the passes that it needs and those of this share."""
        return self.applied(manager.completed_for(model))

    @property
    def sentence(self) -> str:
        """What it reveals to whom."""
        kinds: list[str] = [] if self.until or self.after else [self.computes]
        kinds += ["until"] if self.until else []
        kinds += ["from"] if self.after else []
        return "; ".join(SENTENCES[kind] for kind in kinds)
