"""Finalists: compiled, simulated with the backend and run on ciphertexts, before one is called the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..ir.batch_runner import Arrays
from ..ir.errors import OnnxFheError
from ..machine import predict
from ..program import Program
from ..scoring import agreement
from .clock import Clock, OutOfTimeError, bounded
from .compiler import Compiler, in_words
from .crossing import Crossing
from .judge import Judge
from .metric import Answers
from .points import Measured, Point
from .trying import Tester
from .workers import Workers

SIMULATED_SAMPLES = 600
"""Samples of one finalist up to which simulation of the validation data is repeated."""
MAX_ROUNDS = 3
"""Most times that the validation data is simulated."""
SPARE_ROUNDS = 3.0
"""Another round of simulation is begun where so many times its time is left."""
MAX_CROSSED = 2
"""Finalists that are cross-fitted: the best, and what is the best after that."""
MEASURED_FACTOR = 2
"""Where none of the finalists holds the constraints, up to so many times more are measured."""


@dataclass(frozen=True)
class Final:
    """A finalist.

    Attributes:
        point: With what was measured.
        program: The compiled circuit.
        sha256: Of its integer model.
    """

    point: Point
    program: Program
    sha256: str

    @property
    def as_measured(self) -> Point:
        """The point with what was measured, as far as there was time for that, in place of predictions."""
        found = self.point.measured
        if found is None:
            return self.point
        seconds = self.point.seconds if found.seconds is None else found.seconds
        return replace(
            self.point,
            score=found.score,
            seconds=seconds,
            samples_per_second=self.point.samples_per_second * self.point.seconds / max(seconds, 1e-9),
            key_bytes=found.key_bytes or self.point.key_bytes,
        )


@dataclass
class Finals:
    """Compiles and measures.

    Attributes:
        compiler: Makes programs of points.
        tester: Knows the validation data.
        judge: What is better.
        encrypted: Samples to run on ciphertexts.
        tell: Called with what is being done.
        clock: What there is no time for is left out.
        finals: What came of it so far.
        notes: What the user should be told of it.
    """

    compiler: Compiler
    tester: Tester
    judge: Judge
    encrypted: int
    tell: Callable[[str], None]
    clock: Clock = field(default_factory=Clock)
    finals: list[Final] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, candidates: list[Point], count: int, workers: Workers) -> None:
        """Measure the first ``count`` of the candidates, and more as long as none holds the constraints.

        Where time is short fewer are measured, and one whose circuit is there already counts unmeasured.

        Args:
            candidates: The best first.
            count: How many, of those that differ.
            workers: Compile several at once.
        """
        first = {p.sha256: p for p in reversed(candidates)}
        candidates = [p for p in candidates if first[p.sha256] is p]
        self.tell(f"compile {min(count, len(candidates))} finalists")
        self.compiler.prepare(candidates[:count], workers)
        self._compile(candidates, count)
        self._cross(candidates, count)
        if not self.finals:
            # What was made in case that the search is stopped.
            self._compile([p for p in candidates if self.compiler.is_made(p)], 1)
        if not self.finals and self.clock.left() <= 0:
            self._leave_one(candidates[:count])
        self.notes.extend(self._changed())

    def _compile(self, candidates: list[Point], count: int) -> None:
        tried = 0
        for point in candidates:
            enough = count if self.best() is not None else count * (1 + MEASURED_FACTOR)
            if len(self.finals) >= enough:
                break
            if any(f.point.number == point.number for f in self.finals):
                continue
            if self.clock.left() <= 0 and not self.compiler.is_made(point):
                continue
            if self.finals and self.clock.left() < self._needed(point):
                self._say(f"time was left to measure {len(self.finals)} of the finalists")
                break
            tried += 1
            self.tell(f"measure finalist {tried}")
            try:
                program, sha256 = self.compiler.compile(point)
            except OnnxFheError as error:
                self._say(f"trial {point.number} was no finalist: {in_words(error)}")
                continue
            # It counts from here on, whatever stops the measuring.
            self.finals.append(Final(point, program, sha256))
            try:
                with bounded(self.clock.left()):
                    self.finals[-1] = self._measure(self.finals[-1])
            except OutOfTimeError:
                self._say(f"trial {point.number} is not measured: the time was over")

    def _cross(self, candidates: list[Point], count: int) -> None:
        """Judge the best on all inputs; where another is the best after that, this one as well."""
        crossing = Crossing(self.tester, self.clock, self.notes)
        for _ in range(MAX_CROSSED):
            best = self.best()
            if best is None or not crossing.is_due(best.point):
                return
            self.tell("cross-fit the best finalist")
            place = next(i for i, f in enumerate(self.finals) if f is best)
            self.finals[place] = replace(best, point=crossing.judged(best.point))
            if self.best() is None:
                self._compile(candidates, count)

    def _leave_one(self, candidates: list[Point]) -> None:
        """Make one circuit, however long it takes: a late one is better than none. Ctrl-C still ends it."""
        self.notes.clear()
        for point in candidates:
            try:
                program, sha256 = self.compiler.compile(point, bound=False)
            except OnnxFheError as error:
                self._say(f"trial {point.number} was no finalist: {in_words(error)}")
                continue
            self.finals.append(Final(point, program, sha256))
            self._say(f"trial {point.number} is not measured: the time was over")
            return

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _needed(self, point: Point) -> float:
        """Seconds that a finalist will take, at least: making its circuit, keys, and a first sample."""
        made = 0.0 if self.compiler.is_made(point) else self.compiler.longest
        return made + (1 + min(self.encrypted, 1)) * point.seconds

    def best(self) -> Final | None:
        """The best of those that hold the constraints as measured."""
        order = self.judge.preferred([f.as_measured for f in self.finals])
        by_number = {f.point.number: f for f in self.finals}
        return by_number[order[0].number] if order else None

    def nearest(self) -> Final | None:
        """What misses the constraints least, as measured."""
        return min(self.finals, key=lambda f: self.judge.rank(f.as_measured), default=None)

    def _measure(self, final: Final) -> Final:
        program, point = final.program, final.point
        data = self.tester.task.data
        samples = min(SIMULATED_SAMPLES, len(next(iter(data.values()))))
        rounds = []
        for _ in range(min(MAX_ROUNDS, -(-SIMULATED_SAMPLES // samples))):
            began = self.clock.elapsed
            rounds.append(program.simulate(data, samples))
            # The rest of the time is for ciphertexts.
            if self.clock.left() < SPARE_ROUNDS * (self.clock.elapsed - began):
                break
        scores = [self.tester.metric.score(self._answers(r.outputs, samples)) for r in rounds]
        seconds = keygen = encrypted_agreement = None
        statistics = program.statistics
        predicted = predict(statistics, self.tester.task.machine.profile)
        # A backend without complexity computes nothing on ciphertexts: its seconds say nothing.
        runs = min(self.encrypted, samples) if statistics.complexity else 0
        # The first sample waits for what is loaded and made once.
        if runs and self.clock.left() < predicted.keygen_seconds + 2 * predicted.seconds:
            self._say(f"trial {point.number} was not run on ciphertexts: there was no time for it")
            runs = 0
        if runs:
            keygen = program.encrypted(data, 1).seconds.get("keygen")
            one = []
            for i in range(runs):
                one.append(program.encrypted(_only(data, i), 1))
                if self.clock.left() < one[-1].seconds["evaluate"]:
                    break
            runs = len(one)
            seconds = float(np.median([r.seconds["evaluate"] for r in one]))
            agreed = [agreement(r.outputs, r.expected, program.integer_model) for r in one]
            encrypted_agreement = None if None in agreed else float(np.mean(agreed))  # type: ignore[arg-type]
        measured = Measured(
            score=float(np.mean(scores)),
            samples=samples,
            agreement=agreement(rounds[0].outputs, rounds[0].expected, program.integer_model),
            seconds=seconds,
            encrypted_samples=runs,
            encrypted_agreement=encrypted_agreement,
            keygen_seconds=keygen,
            compile_seconds=sum(program.seconds.values()),
            bootstraps=statistics.programmable_bootstraps,
            complexity=statistics.complexity,
            key_bytes=predicted.key_bytes,
            behind=self._behind(point, float(np.mean(scores)), samples),
        )
        return replace(final, point=replace(point, measured=measured))

    def _behind(self, point: Point, score: float, samples: int) -> float:
        sign = 1.0 if self.judge.higher_is_better else -1.0
        complete = samples == len(next(iter(self.tester.task.data.values())))
        return max(0.0, sign * (point.score - score)) if complete else 0.0

    def _answers(self, outputs: Arrays, samples: int) -> Answers:
        given = self.tester.answers(outputs)
        labels = None if given.labels is None else given.labels[:samples]
        expected = {k: v[:samples] for k, v in given.expected.items()}
        return replace(given, labels=labels, expected=expected)

    def _changed(self) -> Iterator[str]:
        for final in self.finals:
            if final.sha256 != final.point.sha256:
                yield (
                    f"trial {final.point.number} gave another integer model here than where it was tried:"
                    " linear algebra of another machine; what was measured counts"
                )


def _only(data: Mapping[str, np.ndarray], index: int) -> Arrays:
    return {k: v[index : index + 1] for k, v in data.items()}
