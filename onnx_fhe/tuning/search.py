"""The search: what to try next, until the budget is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..ir.errors import UserError
from .clock import undisturbed
from .frontier import non_dominated
from .judge import Judge
from .kinds import Kinds
from .points import Failure, Paired, Point
from .space import TRAINING_STEPS, Parameters, Space, presets
from .state import Budget, State, Watch
from .steps import Steps
from .study import Study
from .trying import Candidate, Outcome
from .warm_start import Known, WarmStart
from .workers import Workers

MAX_REPEATED_CHOICES = 60
"""Choices in a row that were tried before, after which nothing is left to try."""
MAX_REFUSED_CHOICES = 8
"""Choices for which there is no time any more, after which the time is over."""


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
        found: Called with the best point so far, whenever there is a new one.
        points, failures: What came of the trials.
        notes: What the user should be told of them.
        exhausted: It ended before its time: nothing was left to try that could be better.
    """

    space: Space
    study: Study
    workers: Workers
    judge: Judge
    budget: Budget
    watch: Watch
    found: Callable[[Point], None]
    points: list[Point] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    exhausted: bool = False
    _choices: dict[int, Parameters] = field(default_factory=dict)
    _tried: set[Candidate] = field(default_factory=set)
    _running: dict[int, tuple[Parameters, Candidate]] = field(default_factory=dict)
    _turn: int = 0
    _is_short: bool = False

    def __post_init__(self) -> None:
        self._kinds = Kinds(self.space, self.notes)
        self._warm_start = WarmStart(self.space, self.judge, self.budget.clock.seconds)
        self._presets = presets(self.space)

    def run(self) -> None:
        """Search until the budget is spent or nothing is left to try.

        Raises:
            UserError: A worker was lost before any trial gave a circuit, or the user's metric fails.
        """
        for number, chosen, outcome in self.study.finished():
            self._note(number, chosen, outcome)
        self._tell()
        while True:
            # Where there is nothing to try now, what ends next may show more.
            while len(self._running) < self.workers.size and self._has_budget():
                if not self._start():
                    break
            if not self._running:
                self.exhausted = self._has_budget() and not self._is_short
                break
            try:
                ended = self.workers.finished(self._left())
            except UserError as error:
                if not self.points:
                    raise
                self.notes.append(f"the search ended early: {error.what} ({error.found})")
                ended = None
            if ended is None:
                self.stop()
                break
            number, outcome = ended
            chosen, _ = self._running.pop(number)
            self._finish(number, chosen, outcome)

    def stop(self) -> None:
        """End the trials that run: there is no time for them any more."""
        if self._running:
            count = len(self._running)
            which = "a trial that was" if count == 1 else f"{count} trials that were"
            self.notes.append(f"the time was over for {which} running; more --seconds would let them end")
        self._running.clear()
        self.workers.stop()

    def state(self, what: str = "search") -> State:
        """Where the search stands."""
        best = self.judge.best(self.points)
        known = {p.number: p for p in self.points}
        front = non_dominated(self.points, self.judge.axes, self.judge.higher_is_better)
        return State(
            self.points,
            self.failures,
            len(self._running),
            self.budget.clock.elapsed,
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
        left = self.budget.clock.left()
        return left - self.budget.finals(self.judge.best(self.points) or self.points)

    def _fits(self, chosen: Parameters, is_preset: bool = False) -> bool:
        """Whether a trial can work and would probably end in time; where nothing is known of it, it may."""
        if is_preset:
            # They search widths, and train or not: at least as long as anything that was tried.
            return max((p.trial_seconds for p in self.points), default=0.0) < self._left()
        if self._kinds.include(chosen):
            return False
        if self._steps().student(chosen) is not None:
            return True
        fits = self._estimate(int(chosen.get("distill", 0))) < self._left()
        self._is_short = self._is_short or not fits
        return fits

    def _estimate(self, grade: int) -> float:
        """Seconds of a trial that trains for so long, by those that did, or else by shorter training."""
        took: dict[int, float] = {}
        for point, chosen in self._known().pairs():
            of = int(chosen.get("distill", 0))
            took[of] = max(took.get(of, 0.0), point.trial_seconds)
        shorter = [took[g] * TRAINING_STEPS[grade] / TRAINING_STEPS[g] for g in took if 0 < g < grade]
        return took.get(grade, max(shorter, default=took.get(0, 0.0)))

    def _start(self) -> bool:
        """Start one trial; False where nothing is left to try."""
        refused = 0
        for _ in range(MAX_REPEATED_CHOICES):
            if not self.study.waiting():
                self._propose()
            queued = self.study.waiting()
            trial, text = self.study.ask()
            with undisturbed():
                chosen = self.space.suggest(trial)
            candidate = Candidate(text or self.space.pipeline(chosen), self.space.assumed)
            if candidate in self._tried:
                self.study.drop(trial.number)
                continue
            if not self._fits(chosen, is_preset=text is not None):
                self.study.drop(trial.number)
                refused += 1
                if refused > MAX_REFUSED_CHOICES:
                    return False
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
        if point is not None:
            self.found(self.candidates()[0])
        self._tell()

    def candidates(self) -> list[Point]:
        """The points that hold the constraints, the best first; where none does, all, the nearest first."""
        return self.judge.preferred(self.points) or sorted(self.points, key=self.judge.rank)

    def _note(self, number: int, chosen: Parameters, outcome: Outcome) -> Point | None:
        readable = self.space.readable(chosen)
        if outcome.pipeline == self.space.pipeline(chosen):
            self._choices[number] = chosen
        self._tried.add(Candidate(outcome.pipeline, outcome.p_error))
        if outcome.found is None:
            self.failures.append(Failure(number, outcome.pipeline, outcome.reason, readable))
            self._kinds.learn(chosen, outcome)
            return None
        found = dict(outcome.found)
        paired = found.pop("paired", None)
        point = Point(
            number=number,
            parameters=readable,
            paired=None if paired is None else Paired(**paired),
            **found,
        )
        self.points.append(point)
        self.judge.learn(self.points)
        return point

    def _propose(self) -> None:
        """Queue what comes next; where nothing is queued Optuna's sampler chooses."""
        for chosen in self._warm_start.first():
            if self._candidate(chosen) not in self._tried and not self._kinds.include(chosen):
                self.study.queue(chosen)
                return
        rung = self._warm_start.next(self._known(), self.budget.clock.elapsed)
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
            lambda c: self._candidate(c) in self._tried or self._kinds.include(c),
        )

    def _is_settled(self) -> bool:
        """Whether a point holds the limits: presets, which know no limits, are tried only where none does."""
        return self.judge.goal.names_accuracy and bool(self.judge.best(self.points))

    def _steps(self) -> Steps:
        return Steps(self.space, self.judge, self._known(), self.points)

    def _candidate(self, chosen: Parameters) -> Candidate:
        return Candidate(self.space.pipeline(chosen), self.space.assumed)

    def _tell(self) -> None:
        self.watch(self.state())
