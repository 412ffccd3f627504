"""Pipelines that were tried: what each was predicted and measured to do, or why it gave no circuit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..ir.range_options import Margin, RangeMode


@dataclass(frozen=True)
class Measured:
    """What a compiled circuit really does.

    Attributes:
        score: The metric on the validation data, with Concrete's simulation.
        samples: Samples that were simulated.
        agreement: Share of simulated predictions that equal the integer model's; None for regressors.
        seconds: Median of evaluating one encrypted sample; None where none ran.
        encrypted_samples: Samples that were encrypted.
        encrypted_agreement: The same of the encrypted ones.
        keygen_seconds: Making the keys.
        compile_seconds: Passes and circuit.
        bootstraps: Programmable bootstraps of one sample.
        complexity: Concrete's own prediction of the operations.
        key_bytes: Evaluation keys as they are sent.
        behind: How much worse the score is than what was predicted on the same samples.
    """

    score: float
    samples: int
    agreement: float | None
    seconds: float | None
    encrypted_samples: int
    encrypted_agreement: float | None
    keygen_seconds: float | None
    compile_seconds: float
    bootstraps: int
    complexity: float
    key_bytes: int
    behind: float = 0.0


@dataclass(frozen=True)
class Paired:
    """How the classes of a circuit compare with the float network's, input by input; means over the noise.

    Attributes:
        validation, calibration: Inputs of each that were compared; of calibration inputs those that no weight
            was fitted to.
        validation_differing, differing: Those where the classes differ.
        has_labels: Whether the metric counts right labels; else it counts these classes themselves.
        lost: Labelled inputs that the network has right and the circuit has not, less the reverse.
        validation_foreseen, foreseen: What the network's own probabilities say is lost where classes
            differ: that of its class less that of the circuit's, summed over these inputs; None without any.
        is_crossed: The calibration inputs are all that there are, each asked of a network that was made
            without it (``crossing``).
    """

    validation: int
    validation_differing: float
    calibration: int
    differing: float
    has_labels: bool
    lost: float
    validation_foreseen: float | None = None
    foreseen: float | None = None
    is_crossed: bool = False


@dataclass(frozen=True)
class Point:
    """One pipeline that was tried. With the model, ``pipeline``, ``p_error``, ``seed`` and the range options
    ``compile`` makes the same integer model again, bit for bit.

    Attributes:
        number: Number of the trial.
        pipeline: The passes, as text with all that differs from their defaults.
        p_error: Error of one lookup that passes are told; tolerated where the pipeline says nothing else.
        seed, range_mode, range_margin: As in ``passes.framework.base.Context``.
        score: The metric on the validation data, with the errors of encryption modelled.
        score_error: Standard error of the difference to the float model on these samples; None where the
            metric has none.
        seconds: Predicted latency of one sample.
        samples_per_second: Predicted throughput.
        key_bytes: Predicted size of the evaluation keys.
        bootstraps: Programmable bootstraps of one sample.
        complexity: Predicted operations of one sample.
        overflows: Validation samples that leave a declared range.
        sha256: Of the integer model.
        parameters: What the search chose.
        trial_seconds: What the trial took.
        measured: What was measured of the compiled circuit, where it was a finalist.
        expected: The score that other samples will probably give, by paired agreement (``agreeing``) and what
            others of its size scored (``shrinkage``); None where nothing is known of it.
        paired: Agreement with the float network; None where there are no classes.
        holds: Probability that it holds the limits on accuracy on other samples; None where there are none.
    """

    number: int
    pipeline: str
    p_error: float
    seed: int
    range_mode: RangeMode
    range_margin: Margin
    score: float
    score_error: float | None
    seconds: float
    samples_per_second: float
    key_bytes: int
    bootstraps: int
    complexity: float
    overflows: int
    sha256: str
    parameters: dict[str, Any] = field(default_factory=dict)
    trial_seconds: float = 0.0
    measured: Measured | None = None
    expected: float | None = None
    paired: Paired | None = None
    holds: float | None = None

    @property
    def tolerated(self) -> float:
        """The tolerated error of one lookup, whoever says it."""
        return float(self.parameters.get("p_error", self.p_error))


@dataclass(frozen=True)
class Failure:
    """A pipeline that gave no circuit, and why."""

    number: int
    pipeline: str
    reason: str
    parameters: dict[str, Any] = field(default_factory=dict)
