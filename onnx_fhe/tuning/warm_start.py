"""How a search begins: what the sizes of a network cost, and then training the promising ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from .judge import Judge
from .points import Point
from .space import TRAINED_CHOICE, TRAINING_STEPS, Parameters, Space, student, untrained

REMOVED_SIXTEENTHS = (14, 12, 10, 8, 4, 0)
"""Neurons that go, of sixteen, in the order in which they are looked at."""
TRIED_WIDTHS = (4, 5)
"""Bits that reach tables: steps of three bits are no faster, and cost accuracy."""
MAX_LAYER_COUNTS = 4
"""Numbers of layers that are looked at: all numbers of a deep network would take the whole budget."""
LOOKING_SHARE = 0.2
"""Share of the budget after which no more sizes are looked at."""
MAX_COST_SHARE = 0.97
"""What is tried has to cost no more than this share of the best."""
CLEAR_ERRORS = 1.0
"""Standard errors by which a size must miss the constraints for what is smaller to be given up."""
MAX_STUDENT_SHARE = 1 / 6
"""Share of the budget that training one student in earnest may take; else students are trained briefly."""

_LESS = ("layers", "neurons", "sparsity", "error")
_MORE = ("weights", "inputs", "activations", "rounding", "distill")


@dataclass
class WarmStart:
    """Sizes of a network, from those that cost least to those that keep most.

    Each is first tried as it is after removal, which takes seconds and says what it costs. Then students are
    trained: in the middle of what is cheaper than the best so far, and so on, as in a bisection. What is
    smaller in every way than something that clearly missed is given up.

    Attributes:
        space: What may be chosen.
        judge: What is better.
        seconds: Time that the search may take; None where it has no limit.
    """

    space: Space
    judge: Judge
    seconds: float | None
    _rungs: list[Parameters] = field(default_factory=list)

    def __post_init__(self) -> None:
        trained = TRAINED_CHOICE if self.space.trains else 0
        counts = list(range(len(self.space.layers)))[::-1]
        spread = sorted({*counts[:2], *counts[2 :: max(1, len(counts) // 2)], 0}, reverse=True)
        for bits in TRIED_WIDTHS:
            for count in [*spread[: MAX_LAYER_COUNTS - 1], 0] if len(spread) > MAX_LAYER_COUNTS else spread:
                for share in REMOVED_SIXTEENTHS if not self.space.quantized else (0,):
                    size = {"layers": count, "neurons": share, "rounding": bits}
                    self._rungs.append(student(self.space, trained, **size))

    def first(self) -> list[Parameters]:
        """What comes before all else: something plain; then a student half as large, trained briefly."""
        plain = self.space.complete({})
        if not self.space.trains:
            return [plain]
        removed = {} if self.space.quantized else {"layers": len(self.space.layers) - 1, "neurons": 8}
        return [plain, student(self.space, 1, **removed)]

    def next(self, known: Known, elapsed: float) -> Parameters | None:
        """What to try now; None where it has nothing more to try.

        Args:
            known: What was tried so far.
            elapsed: Seconds since the search began.
        """
        return self._look(known, elapsed) or (self._train(known) if self.space.trains else None)

    def _look(self, known: Known, elapsed: float) -> Parameters | None:
        if self.seconds is not None and elapsed > LOOKING_SHARE * self.seconds:
            return None
        for rung in self._rungs:
            plain = untrained(self.space, rung)
            # Where four bits are far too few five may do, and else cost more.
            if rung["rounding"] == TRIED_WIDTHS[0] and not known.was_tried(plain):
                return plain
        return None

    def _train(self, known: Known) -> Parameters | None:
        grade = self._grade(known)
        limit = self._limit(known)
        found: list[tuple[float, Parameters]] = []
        for rung in self._rungs:
            rung = self.space.complete({**rung, "distill": grade})
            seconds = self._price(known, rung)
            if seconds is None or seconds >= MAX_COST_SHARE * limit or known.was_tried(rung):
                continue
            if self.judge.goal.names_accuracy and self._is_hopeless(known, rung):
                continue
            found.append((seconds, rung))
        if not found:
            return None
        found.sort(key=lambda f: f[0])
        # Where only cost is limited, the most expensive that is allowed is the most exact.
        return found[len(found) // 2 if self.judge.goal.names_accuracy else -1][1]

    def _grade(self, known: Known) -> int:
        """How long to train."""
        brief = [p.trial_seconds for p, c in known.pairs() if c.get("distill") == 1]
        if not brief or self.seconds is None:
            return TRAINED_CHOICE
        return (
            TRAINED_CHOICE
            if min(brief) * TRAINING_STEPS[TRAINED_CHOICE] / TRAINING_STEPS[1]
            < MAX_STUDENT_SHARE * self.seconds
            else 1
        )

    def _limit(self, known: Known) -> float:
        """Seconds that something worth training may take."""
        if self.judge.goal.names_accuracy:
            best = self.judge.surest(known.points)
            return best.seconds if best is not None else float("inf")
        return float("inf")

    def _price(self, known: Known, rung: Parameters) -> float | None:
        """Predicted seconds, by what was looked at; None where that says nothing, or costs too much."""
        found = known.point(untrained(self.space, rung))
        if found is None:
            four = known.point(untrained(self.space, {**rung, "rounding": TRIED_WIDTHS[0]}))
            if four is None or rung["rounding"] == TRIED_WIDTHS[0]:
                return None
            # Five bits cost a fifth to two fifths more.
            found = replace(four, seconds=1.3 * four.seconds)
        if not self.judge.goal.names_accuracy and self.judge.miss(found) > 0:
            return None
        return found.seconds

    def _is_hopeless(self, known: Known, rung: Parameters) -> bool:
        return any(self._misses_clearly(p) and is_within(rung, c) for p, c in known.pairs())

    def _misses_clearly(self, point: Point) -> bool:
        return self.judge.is_short(point, CLEAR_ERRORS)


@dataclass(frozen=True)
class Known:
    """What was tried.

    Attributes:
        points: What came of it.
        choices: By number of trial.
        was_tried: Whether a choice was, or is being, tried.
    """

    points: list[Point]
    choices: Mapping[int, Parameters]
    was_tried: Callable[[Parameters], bool]

    def pairs(self) -> Iterable[tuple[Point, Parameters]]:
        """Points with their choices."""
        return ((p, self.choices[p.number]) for p in self.points)

    def point(self, chosen: Parameters) -> Point | None:
        """What came of a choice."""
        return next((p for p, c in self.pairs() if c == chosen), None)


def is_within(small: Parameters, large: Parameters) -> bool:
    """Whether a choice keeps nowhere more of the network than another."""
    less = all(small.get(n, 0) >= large.get(n, 0) for n in _LESS)
    return less and all(small.get(n, 0) <= large.get(n, 0) for n in _MORE)
