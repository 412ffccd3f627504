"""The search: what to try next, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .frontier import Failure, Point, non_dominated
from .judge import Judge
from .ladder import Known, Ladder
from .space import Parameters, Space, presets
from .steps import Steps
from .study import Study
from .trying import Candidate, Outcome
from .workers import Workers

MOST_REPEATS = 60
"""So many choices in a row that were tried before, and there is nothing left to try."""


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
        if self._steps().student(chosen) is not None:
            return True
        grade = chosen.get("distill")
        like = [p.trial_seconds for p, c in self._known().pairs() if c.get("distill") == grade]
        return max(like, default=0.0) < self._left()

    def _start(self) -> bool:
        """Start one trial; False where nothing is left to try."""
        for _ in range(MOST_REPEATS):
            if not self.study.waiting():
                self._propose()
            queued = self.study.waiting()
            trial, text = self.study.ask()
            chosen = self.space.suggest(trial)
            candidate = Candidate(text or self.space.pipeline(chosen), self.space.assumed)
            if candidate in self._tried:
                self.study.drop(trial.number)
                continue
            if not queued and (steps := self._steps()).is_useless(chosen):
                self.study.drop(trial.number)
                self.study.queue(steps.resized(chosen))
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
        steps = self._steps()
        for chosen in steps.like_best():
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
        for chosen in steps.to_hold() if turn == 2 else steps.from_best():
            if self._candidate(chosen) in self._tried or not self._fits(chosen):
                continue
            if not steps.is_useless(chosen):
                self.study.queue(steps.looked_at(chosen))
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

    def _steps(self) -> Steps:
        return Steps(self.space, self.judge, self._known(), self.points)

    def _candidate(self, chosen: Parameters) -> Candidate:
        return Candidate(self.space.pipeline(chosen), self.space.assumed)

    def _tell(self) -> None:
        self.watch(self.state())
