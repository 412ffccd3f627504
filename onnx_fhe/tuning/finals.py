"""Finalists: compiled, simulated with the backend and run on ciphertexts, before one is called the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..ir.errors import FidelityError, OnnxFheError
from ..ir.runtime import Arrays
from ..machine import predict
from ..program import Program
from ..scoring import agreement
from .compiler import Compiler
from .frontier import Measured, Point
from .judge import Judge
from .metric import Answers
from .trying import Tester
from .workers import Workers

SIMULATED, ROUNDS = 600, 3
"""Simulated samples of one finalist: the validation data up to so many, or up to so often."""
MORE = 2
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
        """The point with what was measured in place of what was predicted."""
        found = self.point.measured
        assert found is not None
        seconds = self.point.seconds if found.seconds is None else found.seconds
        return replace(
            self.point,
            score=found.score,
            seconds=seconds,
            samples_per_second=self.point.samples_per_second * self.point.seconds / max(seconds, 1e-9),
            key_bytes=found.key_bytes or self.point.key_bytes,
        )


@dataclass(frozen=True)
class Finals:
    """Compiles and measures.

    Attributes:
        compiler: Makes programs of points.
        tester: Knows the validation data.
        judge: What is better.
        encrypted: Samples to run on ciphertexts.
        tell: Called with what is being done.
    """

    compiler: Compiler
    tester: Tester
    judge: Judge
    encrypted: int
    tell: Callable[[str], None]

    def run(
        self, candidates: list[Point], count: int, workers: Workers
    ) -> tuple[list[Final], Final | None, list[str]]:
        """Measure the first ``count`` of the candidates, and more as long as none holds the constraints.

        Args:
            candidates: The best first.
            count: How many, of those that differ.
            workers: Compile several at once.

        Returns:
            The finalists, the best of those that hold the constraints as measured, and notes.
        """
        finals: list[Final] = []
        notes: list[str] = []
        first = {p.sha256: p for p in reversed(candidates)}
        candidates = [p for p in candidates if first[p.sha256] is p]
        self.tell(f"compile {min(count, len(candidates))} finalists")
        self.compiler.prepare(candidates[:count], workers)
        for point in candidates:
            enough = count if self.best(finals) is not None else count * (1 + MORE)
            if len(finals) >= enough:
                break
            self.tell(f"measure finalist {len(finals) + 1}")
            try:
                finals.append(self._measure(point))
            except OnnxFheError as error:
                why = error.what if not isinstance(error, FidelityError) else f"{error.what} ({error.found})"
                notes.append(f"trial {point.number} was no finalist: {why}")
        notes.extend(self._changed(finals))
        return finals, self.best(finals), notes

    def best(self, finals: list[Final]) -> Final | None:
        """The best of those that hold the constraints as measured."""
        order = self.judge.preferred([f.as_measured for f in finals])
        by_number = {f.point.number: f for f in finals}
        return by_number[order[0].number] if order else None

    def nearest(self, finals: list[Final]) -> Final | None:
        """What misses the constraints least, as measured."""
        return min(finals, key=lambda f: self.judge.rank(f.as_measured), default=None)

    def _measure(self, point: Point) -> Final:
        program, sha256 = self.compiler.compile(point)
        data = self.tester.task.data
        samples = min(SIMULATED, len(next(iter(data.values()))))
        rounds = [program.simulate(data, samples) for _ in range(min(ROUNDS, -(-SIMULATED // samples)))]
        scores = [self.tester.metric.score(self._answers(r.outputs, samples)) for r in rounds]
        seconds = keygen = encrypted_agreement = None
        statistics = program.statistics
        # A backend without complexity computes nothing on ciphertexts: its seconds say nothing.
        runs = self.encrypted if statistics.complexity else 0
        if runs:
            # The first sample waits for what is loaded and made once.
            keygen = program.encrypted(data, 1).seconds.get("keygen")
            one = [program.encrypted(_only(data, i), 1) for i in range(min(runs, samples))]
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
            key_bytes=predict(statistics, self.tester.task.machine.profile).key_bytes,
        )
        return Final(replace(point, measured=measured), program, sha256)

    def _answers(self, outputs: Arrays, samples: int) -> Answers:
        given = self.tester.answers(outputs)
        labels = None if given.labels is None else given.labels[:samples]
        expected = {k: v[:samples] for k, v in given.expected.items()}
        return replace(given, labels=labels, expected=expected)

    def _changed(self, finals: list[Final]) -> Iterator[str]:
        for final in finals:
            if final.sha256 != final.point.sha256:
                yield (
                    f"trial {final.point.number} gave another integer model here than where it was tried:"
                    " linear algebra of another machine or number of threads; what was measured counts"
                )


def _only(data: Mapping[str, np.ndarray], index: int) -> Arrays:
    return {k: v[index : index + 1] for k, v in data.items()}
