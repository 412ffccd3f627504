"""One run of ``tune``: the search, then its finalists, as long as there is time or until it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..ir.errors import UserError
from .clock import undisturbed
from .compiler import Compiler
from .crossing import reserved
from .finals import Finals
from .judge import TIME_RATIO, Judge
from .points import Point
from .search import Search
from .space import Space
from .state import Budget, Watch
from .study import Study
from .trying import Tester
from .workers import Dask, Workers

FINALIST_SECONDS = 8.0
"""Time that compiling and measuring a finalist takes, before any was compiled."""
MAX_FINALISTS_SHARE = 0.4
"""Share of the budget that is kept back for all finalists at most."""


@dataclass
class Run:
    """Search and finalists.

    Attributes:
        space, study, workers, judge: As in ``Search``.
        compiler, tester, encrypted: As in ``Finals``.
        finalists: How many are compiled and measured.
        trials: How many the search tries at most; None for no limit.
        watch: Told of every change.
        notes: What the user should be told.
        stopped: Why it ended early; empty where it did not.
    """

    space: Space
    study: Study
    workers: Workers
    judge: Judge
    compiler: Compiler
    tester: Tester
    finalists: int
    encrypted: int
    trials: int | None
    watch: Watch
    notes: list[str] = field(default_factory=list)
    stopped: str = ""

    def __post_init__(self) -> None:
        self.clock = self.compiler.clock
        # On a cluster students are trained where no circuit is made of them.
        retrained = isinstance(self.workers, Dask)
        finals = reserve(self.compiler, self.finalists, self.encrypted, self.workers.size, retrained)
        budget = Budget(self.trials, self.clock, finals)
        self.search = Search(
            self.space, self.study, self.workers, self.judge, budget, self.watch, self._found
        )
        self.finals = Finals(
            self.compiler,
            self.tester,
            self.judge,
            self.encrypted,
            lambda what: self.watch(self.search.state(what)),
            self.clock,
        )

    def run(self) -> None:
        """Search, then measure. Ctrl-C ends what runs; then the best so far is made a circuit.

        Raises:
            KeyboardInterrupt: Ctrl-C before any trial gave a circuit, or a second time.
            UserError: No pipeline gave a circuit.
        """
        try:
            self.search.run()
        except KeyboardInterrupt:
            self._stop()
        if not self.search.points:
            raise _nothing(self.search)
        try:
            self.finals.run(self._finalists(), 1 if self.stopped else self.finalists, self.workers)
        except KeyboardInterrupt:
            if self.stopped:
                raise
            self._stop()
            if not self.finals.finals:
                self.finals.run(self._finalists(), 1, self.workers)
        self.notes += [*self.search.notes, *self.finals.notes]
        if self.search.exhausted:
            self.notes.append(
                "the search ended before its time: nothing was left to try that could be better"
            )
        if self.clock.seconds is not None and not self.stopped and self.clock.left() < 0:
            self.notes.append(f"it took {-self.clock.left():.0f} s more than the time that was given")

    def _stop(self) -> None:
        """The user asked for an end."""
        if not self.search.points:
            raise KeyboardInterrupt
        self.stopped = "stopped before its time; the best so far was taken"
        self.notes.append(self.stopped)
        self.clock.stop()
        with undisturbed():
            self.workers.stop()

    def _found(self, best: Point) -> None:
        # One that could be made in any case needs no circuit in reserve.
        if self.trials is None or self.clock.seconds is not None:
            self.compiler.safeguard(best, self.workers)

    def _finalists(self) -> list[Point]:
        """The candidates, and behind the fastest the one that is surest to hold the limit on accuracy."""
        found = self.search.candidates()
        cautious = self.judge.cautious(found)
        if cautious is not None and cautious is not found[0]:
            found = [found[0], cautious, *(p for p in found[1:] if p is not cautious)]
        if self.clock.left() < FINALIST_SECONDS + self.compiler.longest:
            # Of those that are as fast as the best, one that is a circuit already will do.
            limit = TIME_RATIO * found[0].seconds
            found.sort(key=lambda p: not (self.compiler.is_made(p) and p.seconds <= limit))
        return found


def reserve(
    compiler: Compiler, finalists: int, encrypted: int, workers: int, retrained: bool
) -> Callable[[list[Point]], float]:
    """Seconds of the budget that making and measuring finalists will take, by what was seen so far.

    Args:
        compiler: Knows how long making a circuit took.
        finalists: How many.
        encrypted: Samples that each runs on ciphertexts.
        workers: How many are made at once.
        retrained: Whether passes of trials run again for a circuit.
    """

    def found(points: list[Point]) -> float:
        given = compiler.clock.seconds
        if given is None or not points:
            return 0.0
        count = min(finalists, len(points))
        making = max(p.trial_seconds for p in points[:count]) if retrained else compiler.longest
        measuring = max(FINALIST_SECONDS, (1 + encrypted) * max(p.seconds for p in points[:count]))
        crossing = reserved(points[:count], given)
        return min(MAX_FINALISTS_SHARE * given, -(-count // workers) * making + count * measuring + crossing)

    return found


def _nothing(search: Search) -> UserError:
    reasons = [f.reason for f in search.failures]
    return UserError(
        "no pipeline made a circuit of this model",
        found=reasons[0] if reasons else "no trial ended in the time that was given",
        do="see what `onnx-fhe inspect` and `onnx-fhe compile` say of it"
        if reasons
        else "give more --seconds or --trials",
    )
