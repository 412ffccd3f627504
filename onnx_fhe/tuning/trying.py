"""Trying one pipeline: run its passes, score the integer model with the errors of encryption, price it."""

from __future__ import annotations

import hashlib
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ..analysis.noise.noise import NoisyModel
from ..backends.reference import count_overflows
from ..ir.batch_runner import Arrays
from ..ir.calibration import Calibration
from ..ir.errors import OnnxFheError, UserError
from ..ir.level import Level, level_of
from ..ir.limits import TargetLimits
from ..ir.p_error import DEFAULT_P_ERROR
from ..ir.partition import partition
from ..ir.plugins.loading import load_plugin
from ..ir.range_options import DEFAULT_MARGIN, DEFAULT_RANGE_MODE, Margin, RangeMode, RangeOptions
from ..ir.results import DEFAULT_RESULTS, Results
from ..ir.runtime import Session
from ..ir.save import serialize
from ..ir.verify import verify
from ..passes.framework.base import Context, Target
from ..passes.framework.manager import PassManager
from ..prologue import Prologue
from .comparing import Comparer
from .metric import Answers, Metric, standard_error
from .pricing import Machine, price
from .recalling import texts_of
from .stages import Stage, Stages

MAX_NOISE_DRAWS = 8
"""Most times that noise is drawn for a trial."""
SCORED_SAMPLES = 1000
"""Samples that are scored before no more noise is drawn."""


@dataclass(frozen=True)
class Candidate:
    """What to try."""

    pipeline: str
    p_error: float

    def failed(self, reason: str, is_defect: bool = False, failed_pass: str = "") -> Outcome:
        """The outcome of a candidate that gave no circuit."""
        return Outcome(
            self.pipeline, self.p_error, reason=reason, is_defect=is_defect, failed_pass=failed_pass
        )


@dataclass(frozen=True)
class Outcome:
    """What came of it: the attributes of a ``Point`` but for its number, or why there is no circuit.

    Attributes:
        pipeline, p_error: What was tried.
        found: Those attributes.
        reason: Why there are none.
        is_defect: A pass failed as none should.
        failed_pass: Its name, where it was a pass that failed.
    """

    pipeline: str
    p_error: float
    found: dict[str, Any] | None = None
    reason: str = ""
    is_defect: bool = False
    failed_pass: str = ""


@dataclass(frozen=True)
class Task:
    """All that a trial needs to know, by value: it travels to other processes and machines.

    Attributes:
        model: The float model, as ONNX.
        calibration: Typical inputs, with their labels where they are known.
        data: The validation samples, by input name.
        labels: Theirs, where known.
        metric: Pickled, for a function of the user's travels by value.
        limits: Limits of the target.
        machine: To price with.
        seed, range_mode, range_margin: As in ``Context``.
        plugins: To load first.
        results: Who may see what is decrypted.
    """

    model: bytes
    calibration: Calibration
    data: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    metric: bytes
    limits: TargetLimits
    machine: Machine
    seed: int = 0
    range_mode: RangeMode = DEFAULT_RANGE_MODE
    range_margin: Margin = DEFAULT_MARGIN
    plugins: tuple[str, ...] = ()
    results: Results = DEFAULT_RESULTS

    def context(self, p_error: float) -> Context:
        """What passes may know."""
        return Context(
            calibration=self.calibration,
            target=Target(self.limits, p_error, results=self.results),
            ranges=RangeOptions(self.range_mode, self.range_margin),
            seed=self.seed,
        )

    def fingerprint(self, *more: object) -> str:
        """A hash of all that the result of a trial depends on, and of ``more``."""
        digest = hashlib.sha256(self.model)
        for arrays in (self.calibration, self.data):
            for name, array in sorted(arrays.items()):
                digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        for labels in (self.calibration.labels, self.labels):
            digest.update(b"" if labels is None else labels.tobytes())
        ranges = (self.range_mode, self.range_margin)
        settings = (self.seed, *ranges, self.limits, self.machine, self.plugins, self.results)
        digest.update(repr((settings, more, version("onnx-fhe"))).encode())
        return digest.hexdigest()


def to_bytes(model: ir.Model) -> bytes:
    """A model in memory, exactly as it is.

    Raises:
        UserError: It is larger than a protobuf may be.
    """
    try:
        return bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    except ValueError as error:
        raise UserError("the model is too large to tune", found=str(error), allowed="up to 2 GB") from error


@dataclass
class Tester:
    """Tries pipelines, one after the other; keeps what several of them begin with.

    Attributes:
        task: What to know.
        folder: Where processes of this machine leave for each other what took long to make; None for nowhere.
    """

    task: Task
    folder: Path | None = None

    def __post_init__(self) -> None:
        for plugin in self.task.plugins:
            load_plugin(plugin)
        self.source = ir.from_proto(onnx.ModelProto.FromString(self.task.model))
        self._stages = Stages(self.folder)
        self.metric: Metric = pickle.loads(self.task.metric)
        self.expected = Session(self.source).run_batched(self.task.data)
        self.comparer = Comparer(self.source, self.task.calibration, self.task.seed, self.task.data)

    def model_after(self, pipeline: str, p_error: float = DEFAULT_P_ERROR) -> ir.Model:
        """What the passes make of the model; a stage that was made before is not made again.

        Raises:
            OnnxFheError: A pass does not take it.
        """
        passes = PassManager.parse(pipeline).passes
        # What passes make depends on this error, too.
        texts = texts_of(passes, p_error)
        count, stage = self._stages.longest(texts)
        stage = stage or Stage(self.source, None)
        context = replace(self.task.context(p_error), source=self.source.clone())
        for place in range(max(count - 1, 0), len(passes)):
            began = time.perf_counter()
            result = PassManager([passes[place]]).run(
                stage.model, replace(context, quantized_from=stage.quantized_from).with_notes([])
            )
            stage = Stage(result.model, result.context.quantized_from, tuple(result.context.notes))
            self._stages.keep(texts[: place + 2], stage, time.perf_counter() - began)
        return stage.model

    def try_out(self, candidate: Candidate) -> Outcome:
        """Run, score and price a pipeline."""
        began = time.perf_counter()
        try:
            model = self.model_after(candidate.pipeline, candidate.p_error)
            if level_of(model) is not Level.INTEGER:
                raise UserError("the pipeline does not reach the integer level", found=str(level_of(model)))
            verify(model)
            draws, score, error = self.score(model, candidate.p_error)
            paired = None
            if self.metric.name in ("accuracy", "agreement"):
                labelled = self.metric.name == "accuracy"
                paired = self.comparer.paired(draws, model, candidate.pipeline, candidate.p_error, labelled)
            cost = price(model, candidate.p_error, self.task.machine)
            overflows = self._overflows(model)
        except OnnxFheError as error:
            return candidate.failed(str(error), not isinstance(error, UserError), error.where.pass_name)
        if not math.isfinite(score):
            return candidate.failed(f"the metric is {score}")
        return Outcome(
            candidate.pipeline,
            candidate.p_error,
            {
                "pipeline": candidate.pipeline,
                "p_error": candidate.p_error,
                "seed": self.task.seed,
                "range_mode": self.task.range_mode,
                "range_margin": self.task.range_margin,
                "score": score,
                "score_error": error,
                "paired": None if paired is None else asdict(paired),
                **asdict(cost),
                "overflows": overflows,
                "sha256": hashlib.sha256(serialize(model)).hexdigest(),
                "trial_seconds": time.perf_counter() - began,
            },
        )

    def score(self, model: ir.Model, p_error: float) -> tuple[list[Answers], float, float | None]:
        """The metric of an integer-level model with the errors of encryption, over several draws of them.

        Returns:
            The answers of each draw, the mean of the metric, and the standard error of the difference to the
            float model, where it has one.
        """
        samples = len(next(iter(self.task.data.values())))
        draws = min(MAX_NOISE_DRAWS, -(-SCORED_SAMPLES // samples))
        noisy = NoisyModel(model, p_error)
        given = [self.answers(noisy.run(self.task.data, self.task.seed + draw)) for draw in range(draws)]
        error = None
        if self.metric.each is not None:
            each = np.mean([self.metric.each(g) for g in given], axis=0)
            error = standard_error(each, self.metric.each(self.answers(self.expected)))
        return given, float(np.mean([self.metric.score(g) for g in given])), error

    def answers(self, outputs: Arrays) -> Answers:
        """Outputs for the validation samples, with what they are compared with."""
        return Answers(outputs, self.task.labels, self.expected, self.source)

    def _overflows(self, model: ir.Model) -> int:
        parts = partition(model)
        values, _ = Prologue(parts).run(self.task.data)
        return count_overflows(parts.server, values).samples
