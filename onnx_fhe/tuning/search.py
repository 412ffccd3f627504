"""The search: what to try next, until the budget is spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .frontier import Failure, Point, non_dominated
from .judge import Judge
from .space import Parameters, Seed, Space, cheaper, exacter, presets, seeds
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
        seconds: Of this run; None for no limit. Trials that run then are waited for.
    """

    trials: int | None
    seconds: float | None


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
    """

    space: Space
    study: Study
    workers: Workers
    judge: Judge
    budget: Budget
    watch: Watch
    points: list[Point] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
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
        self._seeds, self._presets = seeds(self.space), presets(self.space)
        self._tell()
        exhausted = False
        while True:
            while not exhausted and len(self._running) < self.workers.size and self._has_budget():
                exhausted = not self._start()
            if not self._running:
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
        return self.budget.seconds is None or time.monotonic() - self._began < self.budget.seconds

    def _start(self) -> bool:
        """Start one trial; False where nothing is left to try."""
        for _ in range(MOST_REPEATS):
            if not self.study.waiting():
                self._propose()
            trial, text = self.study.ask()
            chosen = self.space.suggest(trial)
            candidate = Candidate(text or self.space.pipeline(chosen), self.space.p_error(chosen))
            if candidate in self._tried:
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
        self._choices[number] = chosen
        self._tried.add(Candidate(outcome.pipeline, outcome.p_error))
        if outcome.found is None:
            self.failures.append(Failure(number, outcome.pipeline, outcome.reason, readable))
            return None
        point = Point(number=number, parameters=readable, **outcome.found)
        self.points.append(point)
        return point

    def _propose(self) -> None:
        """Queue what comes next; where nothing is queued Optuna's sampler chooses."""
        while self._seeds:
            seed = self._seeds.pop(0)
            if not self._is_settled(seed):
                self.study.queue(seed.parameters, seed.pipeline)
                return
        # Steps from the best and from what nearly holds, a preset, and a guess of the sampler, in turns.
        self._turn += 1
        turn = self._turn % 4
        if turn == 0:
            return
        if turn == 3 and self._presets:
            seed = self._presets.pop(0)
            if not self._is_settled(seed):
                self.study.queue(seed.parameters, seed.pipeline)
                return
        for chosen in self._steps_to_hold() if turn == 2 else self._steps_from_best():
            if self._candidate(chosen) not in self._tried:
                self.study.queue(chosen)
                return

    def _is_settled(self, seed: Seed) -> bool:
        text = seed.pipeline or self.space.pipeline(seed.parameters)
        if Candidate(text, self.space.p_error(seed.parameters)) in self._tried:
            return True
        if not seed.removal or not self.judge.goal.names_accuracy:
            return False
        # A stronger removal holds the constraints already: weaker ones only cost more.
        return any(
            _removal(self._choices[p.number]) > _removal(seed.parameters)
            and self._choices[p.number].get("distill", 0)
            for p in self.judge.best(self.points)
        )

    def _steps_from_best(self) -> Iterator[Parameters]:
        for point in self.judge.best(self.points)[:NEAR]:
            step = cheaper if self.judge.goal.names_accuracy else exacter
            yield from step(self.space, self._choices[point.number])

    def _steps_to_hold(self) -> Iterator[Parameters]:
        """From points that miss a constraint by little, and would be better than the best if they held it."""
        found = self.judge.best(self.points)
        limit = self.judge.rank(found[0])[1] if found else float("inf")
        missing = [p for p in self.points if self.judge.miss(p) > 0]
        sizes = Counter(_size(self._choices[p.number]) for p in missing)
        near = [
            p
            for p in missing
            if self.judge.rank(p)[1] < limit and sizes[_size(self._choices[p.number])] < PATIENCE
        ]
        for point in sorted(near, key=self.judge.rank)[:NEAR]:
            missed = {n for n, v in self.judge.violations(point).items() if v > 0}
            step = exacter if missed & {"max_accuracy_drop", "min_accuracy"} else cheaper
            yield from step(self.space, self._choices[point.number])

    def _candidate(self, chosen: Parameters) -> Candidate:
        return Candidate(self.space.pipeline(chosen), self.space.p_error(chosen))

    def _tell(self) -> None:
        self.watch(self.state())


def _size(chosen: Parameters) -> tuple[int, int, int]:
    return (*_removal(chosen), chosen["rounding"])


def _removal(chosen: Parameters) -> tuple[int, int]:
    return (chosen.get("layers", 0), chosen.get("neurons", 0))
