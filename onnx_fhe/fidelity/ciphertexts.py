"""The self-test: a few calibration samples on ciphertexts, against the integer model.

Concrete's own reports have circuits that compute something else on ciphertexts than in the clear.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx_ir as ir

from ..analysis.noise.noise import NoisyModel
from ..backends.base import Circuit, EncryptedSession, LowerOptions
from ..backends.reference import ReferenceBackend, ReferenceCircuit, count_overflows
from ..backends.sides import Progress, quiet
from ..ir.batch_runner import Arrays
from ..ir.errors import LoweringMismatchError
from ..ir.ops import decrypts_by_output
from ..ir.p_error import DEFAULT_P_ERROR
from ..ir.partition import partition
from ..machine import Prediction, Profile, predict
from ..prologue import Prologue
from .figures import SelfTest
from .verdict import percent

SELF_TEST_SAMPLES = 3
"""Samples that are tried without being asked."""
SELF_TEST_SECONDS = 20.0
"""Predicted time, with making the keys, past which fewer samples are tried without being asked, or none."""
NOISE_DRAWS = 64
"""Draws of the noise model for each sample."""
DIFFERENCE_FACTOR = 2.0
"""How many times the largest difference among those draws counts as possible."""

Wanted = int | Literal["auto"]
"""Samples to try, 0 for none; ``auto`` for ``SELF_TEST_SAMPLES`` where that takes up to
``SELF_TEST_SECONDS``."""


def how_many(wanted: Wanted, predicted: Prediction) -> tuple[int, str]:
    """Samples to try, and why not where there are none."""
    if wanted != "auto":
        return wanted, ""
    left = SELF_TEST_SECONDS - predicted.keygen_seconds
    fit = int(left / max(predicted.seconds, 1e-6)) if left > 0 else 0
    if fit:
        return min(SELF_TEST_SAMPLES, fit), ""
    whole = predicted.keygen_seconds + predicted.seconds
    return 0, (
        f"it was not tried on ciphertexts, for that would take about {whole:.0f} s (--self-test 1 does it)"
    )


def tried(
    model: ir.Model,
    circuit: Circuit,
    backend: str,
    data: Mapping[str, np.ndarray] | None,
    wanted: Wanted,
    p_error: float | None,
    progress: Progress,
    machine: Profile | None,
) -> SelfTest | None:
    """The self-test as it was asked for; None where it was not, or where there is nothing to encrypt."""
    if wanted == 0 or data is None or backend == ReferenceBackend.name:
        return None
    statistics = circuit.statistics()
    samples, why = how_many(wanted, predict(statistics, machine))
    if not samples:
        return SelfTest(0, sentence=why)
    return self_test(model, circuit, data, samples, p_error=p_error or statistics.p_error, progress=progress)


def self_test(
    model: ir.Model,
    circuit: Circuit,
    data: Mapping[str, np.ndarray],
    samples: int,
    *,
    p_error: float | None = None,
    progress: Progress = quiet,
) -> SelfTest:
    """Encrypt, evaluate and decrypt samples, and compare with the integer model.

    Args:
        model: Integer level.
        circuit: What was made of it.
        data: Calibration data by input name, samples on axis 0.
        samples: How many to try. Those that overflow are left out: there the circuit wraps, and the model
            does not.
        p_error: Tolerated error of one lookup.
        progress: Called with (what, done, total).

    Raises:
        LoweringMismatchError: A difference is larger than errors of lookups and rounding make it, and it
            comes again.
    """
    began = time.perf_counter()
    server = partition(model).server
    # A few more than are tried, for some may overflow.
    part = {k: v[: 4 * samples] for k, v in data.items()}
    values: Arrays = Prologue(partition(model)).run(part)[0]
    inside = np.flatnonzero(count_overflows(server, values).by_sample == 0)[:samples]
    if not len(inside):
        return SelfTest(0, sentence="it was not tried on ciphertexts: the first calibration samples overflow")
    values = {k: v[inside] for k, v in values.items()}
    expected = ReferenceCircuit(model, LowerOptions()).clear(values)
    allowed = allowed_differences(server, values, expected, p_error)
    session = circuit.session()
    progress("self-test", 0, len(inside))
    session.keygen()
    ranges = {str(d.output.name): d.high - d.low for d in decrypts_by_output(server)}
    equal = largest = bound = repeated = 0
    share = 0.0
    for index in range(len(inside)):
        one = {k: v[index : index + 1] for k, v in values.items()}
        found = _decrypted(session, one)
        if wrong := _wrong(found, expected, allowed, index):
            # An error that p_error allows does not come again on the same sample.
            again = [_decrypted(session, one) for _ in range(2)]
            repeated += 1
            if any(_wrong(f, expected, allowed, index) for f in again):
                raise _mismatch(wrong, found, expected, allowed, index)
        apart = {k: np.abs(found[k][0] - expected[k][index]) for k in expected}
        equal += not any(a.any() for a in apart.values())
        for name, difference in apart.items():
            if difference.size and int(difference.max()) >= largest:
                largest, bound = int(difference.max()), allowed[name]
                share = largest / max(1, int(ranges[name]))
        progress("self-test", index + 1, len(inside))
    seconds = time.perf_counter() - began
    return SelfTest(
        len(inside),
        equal,
        largest,
        bound,
        repeated,
        seconds,
        _sentence(len(inside), equal, share, repeated),
    )


def allowed_differences(
    server: ir.Model, values: Arrays, expected: Arrays, p_error: float | None
) -> dict[str, int]:
    """How far a decrypted integer may be from that of the integer model, by output.

    Args:
        server: The server part of the model.
        values: Samples to encrypt.
        expected: What the integer model makes of them.
        p_error: Tolerated error of one lookup.
    """
    repeated = {k: np.repeat(v.astype(np.float32), NOISE_DRAWS, axis=0) for k, v in values.items()}
    drawn = NoisyModel(server, p_error or DEFAULT_P_ERROR).run(repeated)
    return {
        name: int(
            np.ceil(
                DIFFERENCE_FACTOR
                * np.abs(drawn[name] - np.repeat(wanted, NOISE_DRAWS, axis=0)).max(initial=0.0)
            )
        )
        for name, wanted in expected.items()
    }


def _decrypted(session: EncryptedSession, values: Arrays) -> Arrays:
    return session.decrypt(session.evaluate(session.encrypt(values)))


def _wrong(found: Arrays, expected: Arrays, allowed: Mapping[str, int], index: int) -> str:
    """The output that is further off than allowed, if any."""
    for name, wanted in expected.items():
        if (np.abs(found[name][0] - wanted[index]) > allowed[name]).any():
            return name
    return ""


def _mismatch(
    name: str, found: Arrays, expected: Arrays, allowed: Mapping[str, int], index: int
) -> LoweringMismatchError:
    apart = np.abs(found[name][0] - expected[name][index]).reshape(-1)
    place = int(apart.argmax())
    return LoweringMismatchError(
        "the circuit computes something else on ciphertexts than in the clear; it was not written",
        found=f"sample {index} decrypts to {found[name].reshape(-1)[place]} at {name!r}[{place}], where the"
        f" integer model has {expected[name][index].reshape(-1)[place]}; computed again it was wrong again",
        allowed=f"a difference of {allowed[name]}, which is what errors of lookups and rounding make",
        do="report this with the model; another preset, or another --p-error, makes a circuit with other"
        " parameters, which may be right",
    )


def _sentence(samples: int, equal: int, share: float, repeated: int) -> str:
    were = "sample was" if samples == 1 else "samples were"
    what = f"{samples} calibration {were} encrypted, computed on and decrypted as a test"
    if equal == samples:
        return f"{what}, and gave exactly what the same integers give unencrypted"
    again = f"; {repeated} had to be computed again" if repeated else ""
    return (
        f"{what}, and gave what the same integers give unencrypted, up to the small errors that encryption"
        f" makes ({percent(share)} of an answer's range at most{again})"
    )
