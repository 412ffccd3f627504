"""The search: what to try next, until the budget is spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .frontier import Failure, Point, non_dominated
from .judge import Judge
from .ladder import GAIN, Known, Ladder
from .space import Parameters, Space, alike, cheaper, exacter, presets, untrained
from .study import Study
from .trying import Candidate, Outcome
from .workers import Workers

MOST_REPEATS = 60
"""So many choices in a row that were tried before, and there is nothing left to try."""
NEAR = 3
"""Points from which steps are taken: the best, and those that barely miss the constraints."""
PATIENCE = 4
"""Networks of one size that miss the constraints so often are not mended any more."""


@dataclass(frozen=True)
class Budget:
    """When a search ends.

    Attributes:
        trials: Finished trials, those of earlier runs among them; None for no limit.
        seconds: Of this run; None for no limit. No trial is begun that would probably end later.
        finals: Seconds of those that are left for measuring the finalists.
    """

    trials: int | None
    seconds: float | None
    finals: Callable[[list[Point]], float] | None = None


@dataclass(frozen=True)
class State:
    """Where a search stands; what watches it is told.

    Attributes:
        points, failures: So far.
        running: Trials that run.
        seconds: Since it began.
        best: The best point that holds the constraints so far.
        front: The frontier so far, from cheap to dear.
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


@dataclass
class Search:
    """Tries what is promising.

    Attributes:
        space: What may be chosen.
        study: What was tried; every trial is written there before the next is chosen.
        workers: Where trials run.
        judge: What is better.
        budget: When it ends.
        watch: Told of every change.
        points, failures: What came of the trials.
        exhausted: It ended before its time: nothing was left to try that could be better.
    """

    space: Space
    study: Study
    workers: Workers
    judge: Judge
    budget: Budget
    watch: Watch
    points: list[Point] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    exhausted: bool = False
    _choices: dict[int, Parameters] = field(default_factory=dict)
    _tried: set[Candidate] = field(default_factory=set)
    _running: dict[int, tuple[Parameters, Candidate]] = field(default_factory=dict)
    _turn: int = 0

    def run(self) -> None:
        """Search until the budget is spent or nothing is left to try.

        Raises:
            UserError: A worker was lost, or the user's metric fails.
        """
        self._began = time.monotonic()
        for number, chosen, outcome in self.study.finished():
            self._note(number, chosen, outcome)
        self._ladder = Ladder(self.space, self.judge, self.budget.seconds)
        self._presets = presets(self.space)
        self._tell()
        while True:
            # Where there is nothing to try now, what ends next may show more.
            while len(self._running) < self.workers.size and self._has_budget():
                if not self._start():
                    break
            if not self._running:
                self.exhausted = self._has_budget()
                break
            number, outcome = self.workers.finished()
            chosen, _ = self._running.pop(number)
            self._finish(number, chosen, outcome)

    def state(self, what: str = "search") -> State:
        """Where the search stands."""
        best = self.judge.best(self.points)
        known = {p.number: p for p in self.points}
        front = non_dominated(self.points, self.judge.axes, self.judge.higher_is_better)
        return State(
            self.points,
            self.failures,
            len(self._running),
            time.monotonic() - self._began,
            best[0] if best else None,
            [known[n] for n in front],
            what,
        )

    def _has_budget(self) -> bool:
        done = len(self.points) + len(self.failures) + len(self._running)
        if self.budget.trials is not None and done >= self.budget.trials:
            return False
        return self._left() > 0

    def _left(self) -> float:
        """Seconds that are left to try more."""
        if self.budget.seconds is None:
            return float("inf")
        left = self.budget.seconds - (time.monotonic() - self._began)
        return left - (self.budget.finals(self.judge.best(self.points)) if self.budget.finals else 0.0)

    def _fits(self, chosen: Parameters) -> bool:
        """Whether a trial would probably end in time."""
        if self._student(chosen) is not None:
            return True
        grade = chosen.get("distill")
        like = [p.trial_seconds for p, c in self._known().pairs() if c.get("distill") == grade]
        return max(like, default=0.0) < self._left()

    def _start(self) -> bool:
        """Start one trial; False where nothing is left to try."""
        for _ in range(MOST_REPEATS):
            if not self.study.waiting():
                self._propose()
            trial, text = self.study.ask()
            chosen = self.space.suggest(trial)
            candidate = Candidate(text or self.space.pipeline(chosen), self.space.assumed)
            if candidate in self._tried or (text is None and self._is_useless(chosen)):
                self.study.drop(trial.number)
                continue
            self._tried.add(candidate)
            known = self.study.known.get((candidate.pipeline, candidate.p_error))
            if known is not None:
                self._finish(trial.number, chosen, known)
                if not self._has_budget():
                    return True
                continue
            self._running[trial.number] = (chosen, candidate)
            self.workers.submit(trial.number, candidate)
            self._tell()
            return True
        return False

    def _finish(self, number: int, chosen: Parameters, outcome: Outcome) -> None:
        point = self._note(number, chosen, outcome)
        self.study.record(number, chosen, outcome, {} if point is None else self.judge.violations(point))
        self._tell()

    def _note(self, number: int, chosen: Parameters, outcome: Outcome) -> Point | None:
        readable = self.space.readable(chosen)
        if outcome.pipeline == self.space.pipeline(chosen):
            self._choices[number] = chosen
        self._tried.add(Candidate(outcome.pipeline, outcome.p_error))
        if outcome.found is None:
            self.failures.append(Failure(number, outcome.pipeline, outcome.reason, readable))
            return None
        point = Point(number=number, parameters=readable, **outcome.found)
        self.points.append(point)
        self.judge.luck.learn(self.points)
        return point

    def _propose(self) -> None:
        """Queue what comes next; where nothing is queued Optuna's sampler chooses."""
        for chosen in self._ladder.first():
            if self._candidate(chosen) not in self._tried:
                self.study.queue(chosen)
                return
        rung = self._ladder.next(self._known(), time.monotonic() - self._began)
        if rung is not None and self._fits(rung):
            self.study.queue(rung)
            return
        for chosen in self._like_best():
            if self._candidate(chosen) not in self._tried and self._fits(chosen):
                self.study.queue(chosen)
                return
        # Steps from the best and from what nearly holds, a preset, and a guess of the sampler, in turns.
        self._turn += 1
        turn = self._turn % 4
        if turn == 0:
            return
        if turn == 3 and self._presets and not self._is_settled():
            self.study.queue(*self._presets.pop(0))
            return
        for chosen in self._steps_to_hold() if turn == 2 else self._steps_from_best():
            if self._candidate(chosen) in self._tried or not self._fits(chosen):
                continue
            if not self._is_useless(chosen):
                self.study.queue(self._looked_at(chosen))
                return

    def _known(self) -> Known:
        return Known(
            [p for p in self.points if p.number in self._choices],
            self._choices,
            lambda chosen: self._candidate(chosen) in self._tried,
        )

    def _is_settled(self) -> bool:
        """Presets know no limits: they are for where nothing else holds them."""
        return self.judge.goal.names_accuracy and bool(self.judge.best(self.points))

    def _looked_at(self, chosen: Parameters) -> Parameters:
        """What says in seconds what training a choice would give: itself untrained, if that is news."""
        plain = untrained(self.space, chosen)
        if self._student(chosen) is not None or self._candidate(plain) in self._tried:
            return chosen
        return plain

    def _is_useless(self, chosen: Parameters) -> bool:
        """Whether a student would cost more than the best, by what it comes from, which costs the same."""
        best = self.judge.surest(self.points)
        if best is None or not chosen.get("distill") or not self.judge.goal.names_accuracy:
            return False
        if self._student(chosen) is not None:
            return False
        like = self._known().point(untrained(self.space, chosen))
        return like is not None and like.seconds >= GAIN * best.seconds

    def _student(self, chosen: Mapping[str, object]) -> Point | None:
        """A point with the same student: only another error is tolerated."""
        same = {k: v for k, v in chosen.items() if k != "error"}
        for point, other in self._known().pairs():
            if same == {k: v for k, v in other.items() if k != "error"}:
                return point
        return None

    def _like_best(self) -> Iterator[Parameters]:
        """Others of the size of the best, where too few were tried to tell how lucky it is."""
        best = self.judge.best(self.points)[:1]
        if self.judge.goal.names_accuracy and best and self.judge.luck.is_alone(best[0]):
            yield from alike(self.space, self._choices.get(best[0].number, {}))

    def _steps_from_best(self) -> Iterator[Parameters]:
        for point in self.judge.best(self.points)[:NEAR]:
            step = cheaper if self.judge.goal.names_accuracy else exacter
            if point.number in self._choices:
                yield from step(self.space, self._choices[point.number])

    def _steps_to_hold(self) -> Iterator[Parameters]:
        """From points that miss a constraint by little, and would be better than the best if they held it."""
        found = self.judge.surest(self.points) if self.judge.goal.names_accuracy else None
        limit = float("inf") if found is None else found.seconds
        missing = [
            p
            for p in self.points
            if p.number in self._choices and not (self.judge.miss(p) == 0 and self.judge.is_sure(p))
        ]
        sizes = Counter(_size(self._choices[p.number]) for p in missing)
        near = [p for p in missing if p.seconds < limit and sizes[_size(self._choices[p.number])] < PATIENCE]
        for point in sorted(near, key=self.judge.rank)[:NEAR]:
            missed = {n for n, v in self.judge.violations(point).items() if v > 0}
            step = cheaper if missed - {"max_accuracy_drop", "min_accuracy"} else exacter
            yield from step(self.space, self._choices[point.number])

    def _candidate(self, chosen: Parameters) -> Candidate:
        return Candidate(self.space.pipeline(chosen), self.space.assumed)

    def _tell(self) -> None:
        self.watch(self.state())


def _size(chosen: Parameters) -> tuple[int, int, int]:
    return (chosen.get("layers", 0), chosen.get("neurons", 0), chosen["rounding"])
