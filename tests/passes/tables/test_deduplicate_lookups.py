"""deduplicate-lookups and share-subexpressions: before and after, in ONNX text."""

from __future__ import annotations

import pytest

from onnx_fhe.passes.tables.deduplicate_lookups import MergeEqualNeurons, MoveBeforeRepetition
from onnx_fhe.testing import texts
from onnx_fhe.testing.texts import become, check_exact, load, lookups

refused = texts.refused

NEURONS = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[3, 2] w = {1, 1, 2, 0, 1, 1}, float[3] k = {1, 0, 3}, float[3, 7] t = {3, 0, 1, 2, 1, 0, 3,
 0, 1, 1, 2, 3, 3, 2, 3, 0, 1, 2, 1, 0, 3}, float[3] f = {1, 0, 3}, float[2, 3] w2 = {1, 2, 3, 0, 1, -1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = Add (a, k)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (b, t, f)
    d = Gemm <transB = 1> (c, w2)
    y = onnx_fhe.Decrypt <low = -20, high = 50> (d)
}
"""
NEURONS_AFTER = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[2, 2] w = {1, 1, 2, 0}, float[2] k = {1, 0}, float[2, 7] t = {3, 0, 1, 2, 1, 0, 3,
 0, 1, 1, 2, 3, 3, 2}, float[2] f = {1, 0}, float[2, 2] w2 = {4, 2, -1, 1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = Add (a, k)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (b, t, f)
    d = Gemm <transB = 1> (c, w2)
    y = onnx_fhe.Decrypt <low = -20, high = 50> (d)
}
"""


def test_equal_neurons_become_one() -> None:
    """An offset in front of a table and a table that begins elsewhere are the same."""
    after = become(NEURONS, NEURONS_AFTER, "deduplicate-lookups")
    assert (lookups(load(NEURONS)), lookups(after)) == (3, 2)


@pytest.mark.parametrize(
    "change",
    [("{1, 1, 2, 0, 1, 1}", "{1, 1, 2, 0, 1, 2}"), ("{1, 0, 3}, float[2, 3]", "{1, 0, 2}, float[2, 3]")],
)
def test_neurons_that_differ_stay(change: tuple[str, str]) -> None:
    text = NEURONS.replace(*change)
    assert text != NEURONS
    become(text, text, "deduplicate-lookups")
    assert refused(text, MergeEqualNeurons) == {"no two neurons are equal"}


def test_equal_channels_become_one() -> None:
    text = """
graph (float[N, 1, 3] x) => (float[N, 2] y)
<float[2, 1, 1] w = {2, 2}, float[1, 7] t = {1, 0, 2, 3, 0, 1, 2}, float[1] f = {0}, float[2, 6] w2 = {1, 2,
 3, 4, 5, 6,
 -1, 0, -1, 1, 1, 1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Conv <kernel_shape = [1]> (q, w)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t, f)
    c = Flatten (b)
    d = Gemm <transB = 1> (c, w2)
    y = onnx_fhe.Decrypt <low = -10, high = 70> (d)
}
"""
    after = check_exact(load(text), "deduplicate-lookups")
    assert (lookups(load(text)), lookups(after)) == (6, 3)
    weights = [n.inputs[1].const_value.numpy().tolist() for n in after.graph if n.op_type == "Gemm"]
    assert weights == [[[5, 7, 9], [0, 1, 0]]]


REPEATED = """
graph (float[N, 3] x) => (float[N, 6] y)
<float[1, 4] t = {3, 1, 0, 2}, float[1] f = {0}, int64[4] order = {2, 2, 0, 0}, int64[2] twice = {1, 2},
 int64[1] two = {2}, int64[3] wide = {1, 3, 2}, float[3] scales = {1, 1, 2}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    %s
    y = onnx_fhe.Decrypt <low = 0, high = 3> (%s)
}
"""
REPEATS = {
    "Concat": ["Concat <axis = 1> ({0}, {0})"],
    "Gather": ["Gather <axis = 1> ({0}, order)"],
    "Tile": ["Tile ({0}, twice)"],
    "Expand": ["Unsqueeze ({0}, two)", "Expand ({0}, wide)"],
    "Resize": ["Unsqueeze ({0}, two)", 'Resize <mode = "nearest"> ({0}, , scales)'],
}


@pytest.mark.parametrize("name", REPEATS)
def test_a_table_goes_in_front_of_what_repeats_values(name: str) -> None:
    lookup = "onnx_fhe.TableLookup <step = 1, axis = 1> ({0}, t, f)"
    *ahead, repeating = REPEATS[name]

    def text(*operators: str) -> str:
        lines = [f"v{i + 1} = {op.format(f'v{i}' if i else 'q')}" for i, op in enumerate(operators)]
        return REPEATED % ("\n    ".join(lines), f"v{len(lines)}")

    become(text(*ahead, repeating, lookup), text(*ahead, lookup, repeating), "deduplicate-lookups")


def test_copies_that_take_different_tables_stay() -> None:
    lookup = "d = onnx_fhe.TableLookup <step = 1, axis = 1> (c, t, f)"
    text = (REPEATED % (f"c = Gather <axis = 1> (q, order)\n    {lookup}", "d")).replace(
        "float[1, 4] t = {3, 1, 0, 2}, float[1] f = {0}",
        "float[4, 4] t = {3, 1, 0, 2, 3, 1, 2, 2, 3, 1, 0, 2, 3, 1, 0, 2}, float[4] f = {0, 0, 0, 0}",
    )
    become(text, text, "deduplicate-lookups")
    assert refused(text, MoveBeforeRepetition) == {"no place before the table takes fewer lookups"}


SHARED = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[2, 2] w = {1, 1, 2, 0}, float[2, 2] v = {1, 1, 2, 0}, float[1, 10] t = {3, 0, 1, 2, 1, 0, 3, 1, 2, 1},
 float[1] f = {0},
 float[1, 10] t2 = {3, 0, 1, 2, 1, 0, 3, 1, 2, 1}, float[2] k = {1, 2}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = Gemm <transB = 1> (q, v)
    g = Add (q, a)
    h = Add (b, q)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (g, t, f)
    d = onnx_fhe.TableLookup <step = 1, axis = 1> (h, t2, f)
    e = Mul (d, k)
    s = Add (c, e)
    y = onnx_fhe.Decrypt <low = 0, high = 9> (s)
}
"""
SHARED_AFTER = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[2, 2] w = {1, 1, 2, 0}, float[1, 10] t = {3, 0, 1, 2, 1, 0, 3, 1, 2, 1}, float[1] f = {0},
 float[2] k = {1, 2}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    g = Add (q, a)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (g, t, f)
    e = Mul (c, k)
    s = Add (c, e)
    y = onnx_fhe.Decrypt <low = 0, high = 9> (s)
}
"""


def test_equal_layers_and_tables_are_shared() -> None:
    after = become(SHARED, SHARED_AFTER, "share-subexpressions")
    assert (lookups(load(SHARED)), lookups(after)) == (4, 2)
