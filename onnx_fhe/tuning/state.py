"""What a search may take, and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .clock import Clock
from .points import Failure, Point


@dataclass(frozen=True)
class Budget:
    """When a search ends.

    Attributes:
        trials: Finished trials, those of earlier runs among them; None for no limit.
        clock: Clock of this run. No trial is begun that would probably end later, and one that does is
            stopped.
        finals: Seconds of those that are left for measuring the finalists.
    """

    trials: int | None
    clock: Clock
    finals: Callable[[list[Point]], float]


@dataclass(frozen=True)
class State:
    """Where a search stands; what watches it is told.

    Attributes:
        points, failures: So far.
        running: Trials that run.
        seconds: Since it began.
        best: The best point that holds the constraints so far.
        front: The frontier so far, from cheap to expensive.
        what: What is being done.
    """

    points: list[Point]
    failures: list[Failure]
    running: int
    seconds: float
    best: Point | None
    front: list[Point]
    what: str = "search"


Watch = Callable[[State], None]
