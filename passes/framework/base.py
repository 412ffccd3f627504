"""What a pass is: a frozen dataclass whose fields are its options, and a plain onnx_ir pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from typing_extensions import Self

from ...ir.calibration import Calibration
from ...ir.errors import DataError, OnnxFheError, PipelineError
from ...ir.level import Level, level_of, set_level
from ...ir.limits import TargetLimits
from ...ir.p_error import DEFAULT_P_ERROR
from ...ir.range_options import RangeOptions
from ...ir.results import DEFAULT_RESULTS, Results
from .options import check_options, options_of
from .text import print_options

if TYPE_CHECKING:
    from ...analysis.cost.timing import Timings
    from ...analysis.outputs.expectation import Expectation

Progress = Callable[[str, int, int], None]


def _quiet(what: str, done: int, total: int) -> None:
    """The default progress: none."""


@dataclass(frozen=True)
class Findings:
    """What passes found out, for those who run them; passes append to it.

    Attributes:
        notes: What the user should be told.
        unfitted: Indices of the calibration samples that no weight was fitted to; a pass that trains on the
            others appends them, and the newest counts. Empty where nothing was trained.
        expected: What new inputs are expected to lose, where a pass found that by cross-validation, so that
            every sample was fitted to in the end; the newest counts.
    """

    notes: list[str] = field(default_factory=list)
    unfitted: list[np.ndarray] = field(default_factory=list)
    expected: list[Expectation] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """What will compute the circuit, and how surely.

    Attributes:
        limits: What the backend takes.
        p_error: Tolerated error of one table lookup.
        timings: Timings of the machine; None for those that came with onnx-fhe.
        results: Who may see what is decrypted; where anybody may, nothing may depend on the noise.
    """

    limits: TargetLimits = TargetLimits()
    p_error: float = DEFAULT_P_ERROR
    timings: Timings | None = None
    results: Results = DEFAULT_RESULTS


@dataclass(frozen=True)
class Context:
    """All that a pass may know besides the model; handed to it, never global.

    Attributes:
        calibration: Arrays by input name, samples on axis 0; a ``Calibration`` where labels are known.
        target: What will compute the circuit, and how surely.
        ranges: Where the ranges of accumulators come from.
        seed: Seeds every random choice.
        source: The float model as imported.
        quantized_from: The float model that the pass that quantized was given; set by the manager. Passes
            before it may have removed or composed layers of ``source``.
        progress: Called with (what, done, total).
        findings: What passes found out; they append to it.
    """

    calibration: Mapping[str, np.ndarray] | None = None
    target: Target = Target()
    ranges: RangeOptions = RangeOptions()
    seed: int = 0
    source: ir.Model | None = None
    quantized_from: ir.Model | None = None
    progress: Progress = _quiet
    findings: Findings = field(default_factory=Findings)

    @property
    def labels(self) -> np.ndarray | None:
        """Class of each calibration sample, where known; passes use them only when asked to."""
        return self.calibration.labels if isinstance(self.calibration, Calibration) else None

    @property
    def notes(self) -> list[str]:
        """What the user should be told; passes append to it."""
        return self.findings.notes

    def with_notes(self, notes: list[str]) -> Context:
        """This context with a list of its own for notes: of a trial, which are told only if it is taken."""
        return dataclasses.replace(self, findings=dataclasses.replace(self.findings, notes=notes))

    def require_calibration(self, what_for: str) -> Mapping[str, np.ndarray]:
        """The calibration data, or an error that says who needs it.

        Raises:
            DataError: None was given.
        """
        if self.calibration is None:
            raise DataError(
                "this pass needs calibration data",
                pass_name=what_for,
                found="none",
                allowed="an .npz with one array per model input, samples on axis 0",
                do="give a few hundred typical inputs with --calibration (or Context(calibration=...))",
            )
        return self.calibration


def option(
    default: Any,
    *,
    help: str,  # noqa: A002 - the word users know
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    formerly: str = "",
) -> Any:
    """An option of a pass: a dataclass field with its explanation and what it may be.

    Args:
        default: Its default; mappings become a fresh copy for each pass.
        help: One sentence for ``onnx-fhe passes``.
        low, high: Bounds of a number (inclusive), where there are any.
        choices: Words that are accepted.
        formerly: The field's name in the release before: pipeline texts may still say it, and a note tells.
    """
    metadata = {
        "option": True,
        "help": help,
        "low": low,
        "high": high,
        "choices": choices,
        "formerly": formerly,
    }
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Pass(InPlacePass):
    """Base of the passes of onnx-fhe.

    A subclass is a frozen dataclass in a file of its name; its fields, made by ``option``, are its options.
    It implements ``run``. As any onnx_ir pass it is called with a model and returns a ``PassResult``.
    """

    name: ClassVar[str] = ""
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ, Level.INTEGER)
    produces: ClassVar[Level | None] = None
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    context: Context | None = field(default=None, kw_only=True, repr=False, compare=False)
    renamed: tuple[tuple[str, str], ...] = field(default=(), init=False, repr=False, compare=False)
    """Old and new names of options that a pipeline text gave by their old names."""

    def __post_init__(self) -> None:
        check_options(self)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Edit ``model`` in place; return whether it changed."""
        raise NotImplementedError

    @final
    def call(self, model: ir.Model) -> PassResult:
        """Check the level of ``model``, run, and record the level that comes out.

        Raises:
            PipelineError: The pass does not run on models of this level.
        """
        level = level_of(model)
        if level not in self.accepts:
            raise PipelineError(
                f"{self.name} does not run on a model of the {level} level",
                pass_name=self.name,
                found=str(level),
                allowed=" or ".join(str(a) for a in self.accepts),
                do=_advice(level, self.accepts),
            )
        try:
            modified = self.run(model, self.context or Context())
        except OnnxFheError as error:
            raise error.located(pass_name=self.name) from error.__cause__
        if self.produces is not None and level is not self.produces:
            set_level(model, self.produces)
            modified = True
        return PassResult(model, modified)

    def with_context(self, context: Context) -> Self:
        """This pass, given its context."""
        return dataclasses.replace(self, context=context)

    def to_text(self) -> str:
        """The pipeline text that parses back to this pass."""
        specs = options_of(type(self))
        return print_options(self.name, specs, {s.name: getattr(self, s.name) for s in specs})

    def __str__(self) -> str:
        return self.to_text()


def _advice(level: Level, accepted: tuple[Level, ...]) -> str:
    if level is Level.FLOAT and Level.QDQ in accepted:
        return "put quantize before it"
    if Level.INTEGER in accepted:
        return "put quantize and lower-to-integer before it"
    if level is Level.QDQ:
        return "move it in front of quantize, or leave it out (as balanced does) where a model came quantized"
    return "move it earlier in the pipeline"
