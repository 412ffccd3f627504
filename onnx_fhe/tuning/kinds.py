"""Kinds of trials that cannot work with a network: what was learned once is not tried again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .space import Parameters, Space
from .trying import Outcome

_OPTIONS = {
    "distill": ("distill", "training of students"),
    "prune": ("sparsity", "pruning of weights"),
    "remove-neurons": ("neurons", "removal of neurons"),
    "remove-layers": ("layers", "removal of layers"),
}
"""By pass: the choice that leads to it, and what it does in words."""
_MIXED = "mixed"
MAX_DEFECTS = 2
"""Failures that no pass should have may be chance; after so many of one pass they are not."""


@dataclass
class Kinds:
    """What failed for a reason that holds again.

    Attributes:
        space: What may be chosen.
        notes: One sentence for each kind.
    """

    space: Space
    notes: list[str] = field(default_factory=list)
    _least: dict[str, int] = field(default_factory=dict)
    _defects: Counter[str] = field(default_factory=Counter)

    def learn(self, chosen: Parameters, outcome: Outcome) -> None:
        """A trial failed."""
        if outcome.failed_pass not in _OPTIONS or outcome.pipeline != self.space.pipeline(chosen):
            return
        name, words = _OPTIONS[outcome.failed_pass]
        if outcome.is_defect:
            self._defects[name] += 1
            if self._defects[name] < MAX_DEFECTS:
                return
        if chosen.get(_MIXED):
            # Perhaps it is the width of one layer alone that does not work.
            name, words = _MIXED, "widths of single layers"
        # Less of it may work: half of the neurons where nine tenths were too many.
        least = 1 if name in ("distill", _MIXED) else int(chosen.get(name, 0))
        if least < 1 or least >= self._least.get(name, least + 1):
            return
        if name not in self._least:
            reason = " ".join(outcome.reason.split())
            self.notes.append(f"{words} was not tried again, for it cannot work here: {reason}")
        self._least[name] = least

    def include(self, chosen: Parameters) -> bool:
        """Whether a choice is of a kind that failed."""
        return any(int(chosen.get(name, 0)) >= least for name, least in self._least.items())
