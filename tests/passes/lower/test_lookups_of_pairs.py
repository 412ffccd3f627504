"""lower-to-lookups: the operators it takes apart, against onnxruntime, and how many lookups they take."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.analysis.cost.advice import advice
from onnx_fhe.analysis.expansion.pairs import combination
from onnx_fhe.analysis.expansion.tournament import plan
from onnx_fhe.backends.reference import ReferenceBackend, count_overflows
from onnx_fhe.ir.dialect import DOMAIN
from onnx_fhe.ir.errors import LimitError
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context
from onnx_fhe.passes.lower.lower_to_lookups import LowerToLookups
from onnx_fhe.testing import pipelines

FEW = settings(max_examples=25, deadline=None)


def encrypted(body: str, low: int, high: int, *shapes: str, most: int = 4096, **weights: object) -> ir.Model:
    """A circuit of ``x`` (and ``z``) to ``y`` of at most ``most``, all within declared ranges."""
    names = "xz"[: len(shapes)]
    inputs = ", ".join(f"float[N,{s}] {n}" for n, s in zip(names, shapes, strict=True))
    starts = " ".join(f"{n}e = {DOMAIN}.Encrypt<low = {low}, high = {high}>({n})" for n in names)
    text = f"({inputs}) => (y) {{ {starts} {body} y = {DOMAIN}.Decrypt<low = {-most}, high = {most}>(r) }}"
    return pipelines.model(text, **weights)


def check(model: ir.Model) -> int:
    """Apply the pass; the same integers come out, nothing leaves a table. Returns the lookups."""
    server, values = pipelines.random_integers(model, 24)
    wanted = run(server, values)
    changed = LowerToLookups().with_context(Context())(model)
    assert changed.modified
    left = {n.op_type for n in model.graph if n.domain == ""}
    assert not left & {"Max", "Min", "MaxPool", "ReduceMax", "ReduceMin"}
    after = partition(model).server
    for name, array in run(after, values).items():
        np.testing.assert_array_equal(array, wanted[name])
    assert not count_overflows(after, values).values
    assert not LowerToLookups().with_context(Context())(model).modified
    return ReferenceBackend().lower(model).statistics().programmable_bootstraps


@st.composite
def windows(draw: st.DrawFn) -> tuple[str, str]:
    """Attributes of a MaxPool, and the shape that it reads."""
    dims = draw(st.integers(1, 3))
    size = [draw(st.integers(2, 7 if dims < 3 else 4)) for _ in range(dims)]
    kernel = [draw(st.integers(1, min(3, n))) for n in size]
    dilations = [draw(st.integers(1, 2)) if 2 * (k - 1) < n else 1 for k, n in zip(kernel, size, strict=True)]
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    parts = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in size],
        "dilations": dilations,
        "pads": pads,
        "ceil_mode": draw(st.integers(0, 1)),
    }
    attributes = ", ".join(f"{k} = {v}" for k, v in parts.items())
    return attributes, ",".join(map(str, (draw(st.integers(1, 2)), *size)))


@FEW
@given(windows(), st.sampled_from([(0, 3), (-4, 3), (0, 7)]))
def test_any_max_pooling(case, span):
    attributes, shape = case
    model = encrypted(f"r = MaxPool<{attributes}>(xe)", *span, shape)
    if all(n.op_type != "MaxPool" or n.outputs[0].shape is None for n in model.graph):
        pytest.skip("a window that onnx refuses")
    server, values = pipelines.random_integers(model, 8)
    wanted = run(server, values)
    LowerToLookups().with_context(Context())(model)
    for name, array in run(partition(model).server, values).items():
        np.testing.assert_array_equal(array, wanted[name])


@pytest.mark.parametrize(
    ("attributes", "size", "lookups"),
    [
        ("kernel_shape = [2, 2], strides = [2, 2]", 4, 12),  # three for each of four windows
        ("kernel_shape = [2, 2]", 4, 3 * 4 + 3 * 3),  # rows are shared between windows: 21, not 27
        ("kernel_shape = [3, 3], strides = [2, 2]", 5, 2 * 2 * 5 + 2 * 2 * 2),  # 28, not 32
        ("kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]", 4, None),
        ("kernel_shape = [4, 4]", 4, 15),
        ("kernel_shape = [4, 4]", 7, None),
    ],
)
def test_how_many_lookups_max_pooling_takes(attributes, size, lookups):
    found = check(encrypted(f"r = MaxPool<{attributes}>(xe)", 0, 3, f"1,{size},{size}"))
    assert lookups is None or found == lookups


def test_overlapping_windows_share_what_they_compare() -> None:
    four = plan([tuple(range(i, i + 4)) for i in range(13)], 16)
    assert four.comparisons <= 15 + 13  # neighbours, then pairs of those: not 3 for each of 13 windows
    assert plan([tuple(range(8))], 8).comparisons == 7
    assert len(plan([tuple(range(8))], 8).rounds) == 3
    assert plan([(0,), (1,)], 2).comparisons == 0


@FEW
@given(st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=6))
def test_a_tournament_finds_the_largest(found):
    groups = [tuple(sorted(s)) for s in found]
    tournament = plan(groups, 10)
    values = list(np.random.default_rng(0).permutation(10))
    for pairs in tournament.rounds:
        values += [max(values[a], values[b]) for a, b in pairs]
    assert [values[w] for w in tournament.winners] == [max(values[i] for i in g) for g in groups]
    assert tournament.comparisons <= sum(len(g) - 1 for g in groups)


@pytest.mark.parametrize(
    ("body", "shapes", "lookups"),
    [
        ("r = Max(xe, ze)", ("4", "4"), 4),
        ("r = Min(xe, ze)", ("4", "4"), 4),
        ("m = Max(xe, ze) r = Min(m, xe)", ("4", "4"), 8),
        ("r = Mul(xe, ze)", ("4", "4"), 4),  # two bits each: one table of all pairs
        ("r = Mul(xe, ze)", ("2,3", "2,1"), 6),
        ("r = MatMul(xe, ze)", ("2,3", "3,2"), 12 + 6 + 6),
        ("r = MatMul(xe, ze)", ("2,1", "1,2"), 4),
        ("t = Transpose<perm = [0, 2, 1]>(xe) r = MatMul(xe, t)", ("2,3",), 12 + 6 + 6),
        ("r = ReduceMax<keepdims = 0>(xe, one)", ("3,2",), 4),
        ("r = ReduceMin<keepdims = 1>(xe, two)", ("3,4",), 9),
    ],
)
def test_every_operator(body, shapes, lookups):
    constants = {"one": np.int64([1]), "two": np.int64([2])}
    used = {k: v for k, v in constants.items() if k in body}
    found = check(encrypted(body, 0, 3, *shapes, **used))
    assert lookups is None or found <= lookups


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
def test_products_of_any_width(bits):
    for low in (0, -(2 ** (bits - 1))):
        check(encrypted("r = Mul(xe, ze)", low, low + 2**bits - 1, "5", "5"))
        check(encrypted("r = MatMul(xe, ze)", low, low + 2**bits - 1, "3,2", "2,3"))


@pytest.mark.parametrize(
    ("function", "factors"),
    [
        (lambda x, y: x < y, 4),
        (lambda x, y: x == y, 4),
        (lambda x, y: np.maximum(x - y, 0), 4),
        (lambda x, y: x + y > 9, 4),
        (lambda x, y: x * 0 + y, 3),
        (lambda x, y: (3 * x + y) % 5, 6),
        (lambda x, y: x * 8 + y, 6),
    ],
)
def test_a_table_of_pairs_takes_no_more_bits_than_it_tells_apart(function, factors):
    table = function(*np.indices((8, 8))).astype(int)[None]
    a, b = combination(table)
    i, j = np.indices((8, 8))
    numbers = a * i + b * j
    assert int(np.ceil(np.log2(np.ptp(numbers) + 1))) <= factors
    for number in np.unique(numbers):
        assert len(set(table[0][numbers == number])) == 1


def test_pairs_with_a_table_for_each_channel() -> None:
    table = np.stack([np.add.outer(np.arange(4), np.arange(4)) * c for c in (1, 2, 3)])
    body = f"r = {DOMAIN}.PairLookup<axis = 1>(xe, ze, table, first)"
    model = encrypted(body, 0, 3, "3,2", "3,1", table=table.astype(np.float32), first=np.zeros(2, np.float32))
    assert check(model) == 6


def test_what_is_too_wide_is_refused() -> None:
    with pytest.raises(LimitError, match="too wide") as refused:
        check(encrypted("r = Max(xe, ze)", 0, 70000, "2", "2"))
    assert "operands" in str(refused.value)


def test_dominant_max_pooling_is_worth_a_note() -> None:
    table = {"t": np.float32([[0, 1, 1, 2]]), "f": np.float32([0])}
    body = f"l = {DOMAIN}.TableLookup<step = 1, axis = 1>(xe, t, f) r = MaxPool<kernel_shape = [2, 2]>(l)"
    (note,) = advice(encrypted(body, 0, 3, "1,4,4", most=4, **table))
    assert "average pooling takes none" in note
    assert "21 of 37 bootstraps" in note
    assert advice(encrypted("r = Neg(xe)", 0, 3, "4")) == []
