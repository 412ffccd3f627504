"""What is remembered of how a circuit compares with its network: plain data, part of the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..analysis.outputs.expectation import Expectation

Verdict = Literal["good", "warning", "collapse"]
Step = Literal["", "removed", "quantized", "rounded", "noise", "ranges"]


class FidelityWarning(UserWarning):
    """A circuit loses much against its network, or there is little to tell that from."""


MAX_REMEMBERED_COLUMNS = 64
"""Columns of outputs that an artifact remembers, the worst of them among them."""


@dataclass(frozen=True)
class OutputFigures:
    """One number that the network puts out: a column of an output, a channel of an image, a class.

    Attributes:
        name: Name of the output.
        index: Index of the column or channel; None where the output has only one, or is a class.
        r2: Coefficient of determination: 1 minus the mean squared error over the variance in the network.
            None where the network's value does not vary.
        robust_r2: The same without the worst twentieth of the errors and of the spread, so that no single
            sample moves it. None where what is left does not vary.
        mean_error, median_error: Mean and median of the absolute differences.
        spread: Standard deviation in the network.
        scale: Largest spread of any column of this output; its largest value where none varies.
        varies: Whether the network's value depends on the sample, beyond the rounding of its arithmetic.
        constant: Whether the circuit's does not.
        minor: Whether it varies too little beside the other columns to be judged by its own variance.
        same: Share of equal values, of a class.
        kappa: Cohen's kappa of those values, where each sample has several of them (a class for each place):
            one class a sample is judged as a prediction. None where the network's never differ.
    """

    name: str
    index: int | None
    r2: float | None = None
    robust_r2: float | None = None
    mean_error: float = 0.0
    median_error: float = 0.0
    spread: float = 0.0
    scale: float = 0.0
    varies: bool = True
    constant: bool = False
    minor: bool = False
    same: float | None = None
    kappa: float | None = None


@dataclass(frozen=True)
class Classes:
    """How often two networks predict the same class.

    Attributes:
        agreement: Share of equal predictions.
        kappa: Cohen's kappa: what is left of the agreement when that of chance is taken out; 0 for guessing,
            and for predicting one class always. None where the network itself predicts one class only.
        kappa_error: Its standard error.
        predicted: Classes that the circuit predicts at all.
        others: Samples that are not of the network's most common class.
        certain: Whether the network surely tells classes apart: its output is a class or a probability, or
            the labels are classes. Other networks of several outputs may as well compute values.
        accuracy, network_accuracy: Share of predictions that are the label, of circuit and network; None
            without labels.
        lost: Samples that the network predicted right and the circuit does not, less the other way round.
    """

    agreement: float
    kappa: float | None
    kappa_error: float
    predicted: int
    others: int
    certain: bool
    accuracy: float | None = None
    network_accuracy: float | None = None
    lost: int = 0


@dataclass(frozen=True)
class StepFigures:
    """What is left of the network after a step.

    Attributes:
        step: Which.
        worst_r2: Of the output that is followed least; None where nothing varies.
        agreement: Share of the network's predictions, where there are classes.
    """

    step: Step
    worst_r2: float | None
    agreement: float | None


@dataclass(frozen=True)
class Fidelity:
    """A circuit against the network as it was imported.

    Attributes:
        samples: Samples that were compared, of ``given``.
        given: How many there were.
        simulated: Those of them that the circuit simulated itself; for the others there was no time, and the
            noise model drew the errors of encryption.
        noise: Whether the circuit's simulation has such errors.
        outputs: One for each column of each output, up to ``MAX_REMEMBERED_COLUMNS``.
        left_out: Columns past that.
        worst: The one that is followed least; None where nothing varies.
        classes: Where the network tells classes apart.
        median_sample_error: Median over the samples of the root mean square difference, in spreads of each
            output.
        far: Samples whose difference is more than a whole spread, the first few by their index.
        far_count: How many there are.
        verdict: ``good``, ``warning`` or ``collapse``.
        headline: What was found, in a sentence.
        sentences: What is wrong, and what most likely helps; empty where the verdict is good.
        cause: The step that lost most, where that was looked for.
        steps: What was found when it was.
        expected: What is expected on new inputs, by calibration samples that nothing was trained on; None
            where nothing was trained.
    """

    samples: int
    given: int
    noise: bool
    outputs: tuple[OutputFigures, ...]
    left_out: int = 0
    worst: OutputFigures | None = None
    classes: Classes | None = None
    median_sample_error: float = 0.0
    far: tuple[int, ...] = ()
    far_count: int = 0
    verdict: Verdict = "good"
    headline: str = ""
    sentences: tuple[str, ...] = ()
    cause: Step = ""
    steps: tuple[StepFigures, ...] = ()
    simulated: int = 0
    expected: Expectation | None = None


@dataclass(frozen=True)
class SelfTest:
    """Calibration samples that were encrypted, evaluated and decrypted.

    Attributes:
        samples: How many; 0 where it was not tried.
        equal: Those of them whose decrypted integers are all those of the integer model.
        largest: Largest difference of a decrypted integer.
        allowed: What errors of lookups and rounding may make of that one.
        repeated: Evaluations that were done again, because a difference was larger.
        seconds: Time of making keys and of all evaluations.
        sentence: What was found, or why it was not tried.
    """

    samples: int
    equal: int = 0
    largest: int = 0
    allowed: int = 0
    repeated: int = 0
    seconds: float = 0.0
    sentence: str = ""
