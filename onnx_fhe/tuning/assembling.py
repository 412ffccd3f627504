"""The result of a run, put together."""

from __future__ import annotations

from dataclasses import replace

from ..manifest import packages
from .frontier import Frontier, TestReport, non_dominated
from .run import Run


def frontier_of(
    run: Run,
    *,
    model: str,
    metric: str,
    samples: int,
    backend: str,
    seed: int,
    priced_with: str,
    test: TestReport | None,
) -> Frontier:
    """What a run found.

    Args:
        run: After it ended.
        model: Base name of the file.
        metric: Its name.
        samples: Validation samples.
        backend, seed, priced_with, test: As in ``Frontier``.
    """
    judge, finals, search = run.judge, run.finals, run.search
    best, near = finals.best(), finals.nearest()
    measured = {f.point.number: f.point for f in finals.finals}
    known = [measured.get(p.number, p) for p in search.points]
    points = tuple(
        replace(p, expected=judge.expected(p), holds=judge.holds(p))
        for p in sorted(known, key=lambda p: p.number)
    )
    nearest: int | None = None
    unmet: tuple[str, ...] = ()
    if best is None:
        point = near.as_measured if near is not None else min(search.points, key=judge.rank)
        nearest, unmet = point.number, judge.unmet(point, metric)
        if not finals.finals:
            # What none of them could be compiled for, such as circuits that compute something else.
            unmet = (*unmet, *finals.notes[:1])
    cautious = judge.cautious([f.as_measured for f in finals.finals]) or judge.cautious(search.points)
    axes = judge.axes
    return Frontier(
        model=model,
        metric=metric,
        higher_is_better=judge.higher_is_better,
        float_score=judge.float_score,
        samples=samples,
        goal=judge.goal,
        confidence=judge.confidence,
        axes=axes,
        points=points,
        failures=tuple(sorted(search.failures, key=lambda f: f.number)),
        front=non_dominated(points, axes, judge.higher_is_better),
        finalists=tuple(measured),
        best=None if best is None else best.point.number,
        cautious=None if cautious is None or best is None else cautious.number,
        nearest=nearest,
        unmet=unmet,
        backend=backend,
        seed=seed,
        priced_with=priced_with,
        test=test,
        notes=tuple(run.notes),
        stopped=run.stopped,
        packages=packages(),
    )
