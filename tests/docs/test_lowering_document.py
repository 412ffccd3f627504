"""The worked example of docs/design/lowering.md, recomputed by the passes and by its equations.

A code block behind ``<!-- name -->`` holds what ``blocks()`` computes for that name. After a change that is
meant, write them anew:

    python tests/docs/test_lowering_document.py
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fhe.analysis.ranges.ranges import SoundRanges
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Target
from onnx_fhe.testing import pipelines

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "design" / "lowering.md"

PIPELINE = (
    "normalize",
    "quantize{weights=3 activations=6 inputs=4 method=nearest adapt=0}",
    "lower-to-integer",
    "fuse-tlu",
    "insert-rounding{bits=4}",
)
LAYER, NEURON = "/0/Gemm", 3
W, A, P, MARGIN, P_ERROR = 3, 6, 4, 0.2, 1e-5


@dataclass(frozen=True)
class Facts:
    """What the models hold after each pass, of the layer and its neuron."""

    weights: np.ndarray  # (32, 64) float
    inputs: np.ndarray  # (500, 64) as the quantized model sees them
    step_in: float
    targets: np.ndarray  # (500, 32) float pre-activations
    codes: np.ndarray  # (32, 64) integers
    gain: float
    offset: float
    bias: float
    step_out: float
    accumulators: np.ndarray  # (500, 32)
    first: np.ndarray  # (32)
    table: np.ndarray  # (32, size)
    sound: tuple[int, int]
    multiplier: int
    shift: int
    removed: int
    rounded: np.ndarray  # (16)


@cache
def facts() -> Facts:
    """Run the pipeline on the shipped network and read the neuron off the models."""
    data = {"input": np.load(ROOT / "examples" / "digits_mlp.calibration.npz")["input"]}
    model = pipelines.imported(onnx.load(ROOT / "examples" / "digits_mlp.onnx"))
    stages = {}
    for text in PIPELINE:
        model = pipelines.apply(model, text, data, range_margin=MARGIN, target=Target(p_error=P_ERROR))
        stages[text.split("{")[0]] = model

    def layer(stage: str) -> ir.Node:
        return next(n for n in stages[stage].graph if n.name == LAYER)

    def values(stage: str, value: ir.Value) -> np.ndarray:
        return pipelines.first(run(stages[stage], data, [value.name]))

    quantized = layer("quantize")
    relu = next(iter(quantized.outputs[0].consumers()))
    to_unit = next(n for n in relu.outputs[0].consumers() if n.op_type == "Mul")
    lookup = pipelines.node(stages["fuse-tlu"], "TableLookup")
    final = pipelines.node(stages["insert-rounding"], "TableLookup")
    rounding = final.inputs[0].producer()
    codes = pipelines.constant(layer("fuse-tlu"), 1)
    filled = pipelines.constant(layer("insert-rounding"), 1)
    sound = SoundRanges(stages["fuse-tlu"]).of(lookup.inputs[0])
    step_in = float(pipelines.constant(pipelines.node(stages["quantize"], "QuantizeLinear"), 1))
    return Facts(
        weights=pipelines.constant(layer("normalize"), 1).astype(np.float64),
        inputs=values("quantize", quantized.inputs[0]).astype(np.float64),
        step_in=step_in,
        targets=values("normalize", layer("normalize").outputs[0]).astype(np.float64),
        codes=codes.astype(int),
        gain=float(pipelines.constant(quantized.inputs[1].producer(), 1)[NEURON]),
        offset=float(pipelines.constant(quantized, 2)[NEURON]),
        bias=float(pipelines.constant(layer("normalize"), 2)[NEURON]),
        step_out=1.0 / float(pipelines.constant(to_unit, 1).reshape(-1)[NEURON]),
        accumulators=values("fuse-tlu", lookup.inputs[0]).astype(int),
        first=pipelines.constant(lookup, 2).astype(int),
        table=pipelines.constant(lookup, 1).astype(int),
        sound=(int(sound[0][0, NEURON]), int(sound[1][0, NEURON])),
        multiplier=int(np.abs(filled[NEURON]).sum() / np.abs(codes[NEURON]).sum()),
        shift=int(pipelines.constant(rounding.inputs[0].producer(), 1).reshape(-1)[NEURON]),
        removed=rounding.attributes["lsbs_to_remove"].as_int(),
        rounded=pipelines.constant(final, 1)[NEURON].astype(int),
    )


def errors_of_shares(f: Facts) -> dict[float, float]:
    """Step 1 for every share r: (Q s - w) H (Q s - w)^T."""
    centred = f.inputs - f.inputs.mean(axis=0)
    moment, w = centred.T @ centred / len(centred), f.weights[NEURON]
    found = {}
    for share in np.linspace(0.25, 1.0, 31):
        scale = share * np.abs(w).max() / 3
        difference = np.clip(np.rint(w / scale), -3, 3) * scale - w
        found[float(share)] = float(difference @ moment @ difference)
    return found


def declared(f: Facts) -> tuple[np.ndarray, np.ndarray]:
    """Observed ranges with the margin, of every neuron."""
    low, high = f.accumulators.min(axis=0), f.accumulators.max(axis=0)
    extra = np.ceil((high - low) * MARGIN)
    return (low - extra).astype(int), (high + extra).astype(int)


def width(span: int) -> tuple[int, int, int]:
    """Step 5: L, t and the largest value of the safe range."""
    removed = 0
    while (2 ** (P + removed) - 1) - (2**removed // 2) < span:
        removed += 1
    return P + removed, removed, 2 ** (P + removed) - 1 - 2**removed // 2


def float_rows(array: np.ndarray) -> str:
    return "\n".join(" ".join(f"{v:7.3f}" for v in row) for row in array.reshape(8, 8))


def integer_rows(array: np.ndarray) -> str:
    return "\n".join(" ".join(f"{v:2d}" for v in row) for row in array.reshape(8, 8))


def listing(**rows: object) -> str:
    wide = max(map(len, rows))
    shown = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in rows.items()}
    return "\n".join(f"{k.replace('_', ' '):{wide}} = {v}" for k, v in shown.items())


def blocks() -> dict[str, str]:
    """The text of every marked block."""
    f = facts()
    errors = errors_of_shares(f)
    share = min(errors, key=errors.__getitem__)
    scale = share * np.abs(f.weights[NEURON]).max() / 3
    steps = np.rint(f.inputs / f.step_in)
    low, high = declared(f)
    wide, narrow = int((high - low).max()), int(high[NEURON] - low[NEURON])
    before = width(wide)
    after = P + f.removed, f.removed, 2 ** (P + f.removed) - 1 - 2**f.removed // 2
    accumulator = f.accumulators[:, NEURON]
    slope, intercept = np.polyfit(f.inputs @ f.codes[NEURON], f.targets[:, NEURON], 1)
    return {
        "pipeline": ",\n".join(PIPELINE),
        "inputs": listing(bits=4, scale=f.step_in, zero_point=0, largest=int(steps.max())),
        "float weights": float_rows(f.weights[NEURON]),
        "scale": listing(
            largest_weight=float(np.abs(f.weights[NEURON]).max()),
            r=share,
            s=float(scale),
            error=errors[share],
            error_at_r_1=errors[1.0],
        ),
        "integer weights": integer_rows(f.codes[NEURON]),
        "refit": listing(
            s=float(scale), g=float(slope), bias=f.bias, beta=float(intercept), G=float(slope) * f.step_in
        ),
        "activation": listing(bits=A, s_out=f.step_out, zero_point=0, last_step=float(f.step_out * 63)),
        "range": listing(
            observed=f"{accumulator.min()} .. {accumulator.max()}",
            margin=int(np.ceil(np.ptp(accumulator) * MARGIN)),
            declared=f"{low[NEURON]} .. {high[NEURON]}",
            sound=f"{f.sound[0]} .. {f.sound[1]}",
            span=narrow,
            widest_span_of_the_layer=wide,
        ),
        "width": listing(L=before[0], t=before[1], top=before[2]),
        "filled": listing(
            L=after[0], t=after[1], top=after[2], m=f.multiplier, m_times_span=f.multiplier * narrow
        ),
        "offset": listing(
            at_least=-f.multiplier * int(low[NEURON]),
            at_most=after[2] - f.multiplier * int(high[NEURON]),
            o=f.shift,
        ),
        "table": table_rows(f),
    }


def table_rows(f: Facts) -> str:
    """For each entry: accumulators that are rounded to it, what they had, how often they came, the result."""
    low, high = (int(b[NEURON]) for b in declared(f))
    x = np.arange(low, high + 1)
    index = (x * f.multiplier + f.shift + 2**f.removed // 2) >> f.removed
    old = f.table[NEURON][np.clip(x - f.first[NEURON], 0, f.table.shape[1] - 1)]
    count = np.bincount(f.accumulators[:, NEURON] - low, minlength=len(x))
    rows = [" i | accumulators | entries before | samples | entry"]
    for i in range(2**P):
        here = index == i
        rows.append(
            f"{i:2d} | {x[here].min():4d} .. {x[here].max():4d} |"
            f" {old[here].min():2d} .. {old[here].max():2d}       |"
            f" {count[here].sum():7d} | {f.rounded[i]:5d}"
        )
    return "\n".join(rows)


BLOCK = r"(<!-- {name} -->\n```text\n)(.*?)\n?(```)"


def in_document(name: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.findall(BLOCK.format(name=re.escape(name)), text, re.DOTALL)
    assert len(found) == 1, f"{name}: {len(found)} blocks"
    return str(found[0][1])


def tokens(text: str) -> list[str]:
    return re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?|[^\s\d]+", text)


@pytest.mark.parametrize("name", list(blocks()) if DOCUMENT.exists() else [])
def test_the_document_says_what_the_passes_do(name):
    found, wanted = tokens(in_document(name)), tokens(blocks()[name])
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        if "." in b and b.strip("."):
            assert float(a) == pytest.approx(float(b), rel=2e-3, abs=2e-3)
        else:
            assert a == b


def test_every_block_of_the_document_is_checked():
    marked = re.findall(r"<!-- (.*?) -->", DOCUMENT.read_text(encoding="utf-8"))
    assert sorted(marked) == sorted(blocks())


def test_step_1_nearest_integers_at_the_best_scale():
    f = facts()
    errors = errors_of_shares(f)
    scale = min(errors, key=errors.__getitem__) * np.abs(f.weights[NEURON]).max() / 3
    np.testing.assert_array_equal(f.codes[NEURON], np.clip(np.rint(f.weights[NEURON] / scale), -3, 3))


def test_step_2_gain_and_offset_are_the_least_squares_fit():
    f = facts()
    slope, intercept = np.polyfit(f.inputs @ f.codes[NEURON], f.targets[:, NEURON], 1)
    assert f.gain == pytest.approx(slope, rel=1e-4)
    assert f.offset == pytest.approx(intercept, rel=1e-3, abs=1e-4)
    # Accumulators of the integer level are the same in input steps.
    np.testing.assert_array_equal(f.accumulators, np.rint(f.inputs / f.step_in).astype(int) @ f.codes.T)


def test_step_3_the_scale_of_the_activation():
    f = facts()
    z = np.maximum(f.targets[:, NEURON], 0)
    shares = [*np.linspace(0.15, 1, 35), 1.05, 1.1, 1.2, 1.3, 1.45, 1.6]
    candidates = [r * z.max() / 63 for r in shares]
    seen = np.array([((np.clip(np.rint(z / s), 0, 63) * s - z) ** 2).mean() for s in candidates])
    # A new value exceeds the largest with probability 1 / (n + 1), by the mean of what the last 25th does.
    tail = np.sort(z)[-(len(z) // 25) - 1 :]
    mean, room = (tail[1:] - tail[0]).mean(), np.array([63 * s - z.max() for s in candidates])
    beyond = 2 * mean**2 * np.exp(-np.maximum(room, 0) / mean)
    beyond += 2 * mean * np.maximum(-room, 0) + np.maximum(-room, 0) ** 2
    errors = seen + beyond / (len(z) + 1)
    assert f.step_out == pytest.approx(candidates[int(np.argmin(errors))], rel=1e-5)


def test_step_4_the_unrounded_table():
    f = facts()
    x = f.first[NEURON] + np.arange(f.table.shape[1])
    real = np.maximum(x * f.gain * f.step_in + f.offset, 0) / f.step_out
    wanted = np.clip(np.rint(real), 0, 63)
    assert (f.table[NEURON] != wanted).sum() <= 1  # a tie by float error at most
    assert f.sound == (
        15 * int(np.clip(f.codes[NEURON], None, 0).sum()),
        15 * int(np.clip(f.codes[NEURON], 0, None).sum()),
    )


def test_step_5_and_6_width_gain_and_offset():
    f = facts()
    low, high = declared(f)
    bits, removed, top = width(int((high - low).max()))
    assert f.sound[0] <= low[NEURON]
    assert high[NEURON] <= f.sound[1]
    # Fresh encryptions leave room for any weights: four bits more, for finer gains.
    assert f.removed == removed + 4
    top = 2 ** (bits + 4) - 1 - 2 ** (removed + 4) // 2
    assert f.multiplier == top // (high[NEURON] - low[NEURON])
    assert -f.multiplier * low[NEURON] <= f.shift <= top - f.multiplier * high[NEURON]


def test_step_7_the_entries():
    """Means of the unrounded entries, weighted by smoothed counts and by what noise reads next door."""
    f = facts()
    low, high = (int(b[NEURON]) for b in declared(f))
    step = 2**f.removed
    cell = max(1, step // 32 // f.multiplier)
    size = (high - low) // cell + 1
    centre = np.minimum(low + np.arange(size) * cell + (cell - 1) / 2, high)
    entry = f.table[NEURON][np.rint(centre - f.first[NEURON]).astype(int)]
    count = np.bincount((f.accumulators[:, NEURON] - low) // cell, minlength=size).astype(float)
    reach = max(1, size // 48)
    kernel = np.exp(-0.5 * (np.arange(-2 * reach, 2 * reach + 1) / reach) ** 2)
    count = np.convolve(count, kernel / kernel.sum(), mode="same")
    weight = 0.95 * count / count.sum() + 0.05 / size
    place = (centre * f.multiplier).astype(int) + f.shift
    exact = place / step + 0.5
    slope = 1.702 / (0.5 / NormalDist().inv_cdf(1 - P_ERROR / 2))
    above, below = (1 / (1 + np.exp(slope * d)) for d in (1 - exact % 1, exact % 1))
    index = np.floor(exact).astype(int)
    mass, total = np.zeros(2**P), np.zeros(2**P)
    for at, share in ((index, 1 - above - below), (index + 1, above), (index - 1, below)):
        np.add.at(mass, np.clip(at, 0, 2**P - 1), weight * share)
        np.add.at(total, np.clip(at, 0, 2**P - 1), weight * share * entry)
    used = mass > 1e-12
    assert (np.abs(f.rounded[used] - total[used] / mass[used]) <= 0.5 + 1e-6).all()


def update() -> None:
    """Write the blocks into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, block in blocks().items():
        text = re.sub(
            BLOCK.format(name=re.escape(name)), lambda m, b=block: f"{m[1]}{b}\n{m[3]}", text, flags=re.DOTALL
        )
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update()
