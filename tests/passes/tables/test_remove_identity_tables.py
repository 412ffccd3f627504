"""remove-identity-tables: before and after, in ONNX text."""

from __future__ import annotations

import pytest

from onnx_fhe.passes.tables.remove_identity_tables import RemoveAffine
from onnx_fhe.testing import texts
from onnx_fhe.testing.texts import become, check_exact, load, lookups

refused = texts.refused

DENSE = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[2, 2] w = {1, -1, 2, 1}, float[1, 4] t1 = {0, 2, 4, 6}, float[1] f1 = {0}, float[2, 3] w2 = {1, 2, 1,
 1, 1, 1},
 float[2, 19] t2 = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
 1, 1, 1,
 1, 1, 1, 1, 0}, float[2] f2 = {-6, 0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f1)
    b = Gemm <transB = 1> (a, w)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (b, t2, f2)
    y = onnx_fhe.Decrypt <low = 0, high = 3> (c)
}
"""
DENSE_AFTER = (
    DENSE.replace("{1, -1, 2, 1}", "{2, -2, 4, 2}")
    .replace("    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f1)\n", "")
    .replace("Gemm <transB = 1> (a,", "Gemm <transB = 1> (q,")
)


def test_a_factor_goes_into_the_weights() -> None:
    after = become(DENSE, DENSE_AFTER, "remove-identity-tables")
    assert lookups(load(DENSE)) == 4
    assert lookups(after) == 2


PADDED = """
graph (float[N, 2, 3] x) => (float[N, 1, 3] y)
<float[2, 4] t1 = {1, 2, 3, 4, 6, 4, 2, 0}, float[2] f1 = {0, 0}, float[1, 2, 3] w = {1, 1, 1, 1, 0, 2}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f1)
    b = Conv <dilations = [1], group = 1, kernel_shape = [3], pads = [1, 1], strides = [1]> (a, w)
    y = onnx_fhe.Decrypt <low = 0, high = 40> (b)
}
"""
PADDED_AFTER = """
graph (float[N, 2, 3] x) => (float[N, 1, 3] y)
<float[1, 2, 3] w = {1, 1, 1, -2, 0, -4}, float[1, 1, 3] k = {14, 21, 8}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    b = Conv <dilations = [1], group = 1, kernel_shape = [3], pads = [1, 1], strides = [1]> (q, w)
    c = Add (b, k)
    y = onnx_fhe.Decrypt <low = 0, high = 40> (c)
}
"""


def test_an_addend_behind_a_padded_convolution_differs_at_the_border() -> None:
    after = become(PADDED, PADDED_AFTER, "remove-identity-tables")
    assert (lookups(load(PADDED)), lookups(after)) == (6, 0)


MEETING = """
graph (float[N, 2] x) => (float[N, 1] y)
<float[2, 2] w1 = {1, 2, 0, 1}, float[2, 10] t = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 4, 5, 6, 7, 8, 9, 10, 11,
 12},
 float[2] f = {0, 0}, float[1, 2] w2 = {1, -1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w1)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t, f)
    c = Gemm <transB = 1> (b, w2)
    y = onnx_fhe.Decrypt <low = -10, high = 10> (c)
}
"""
MEETING_AFTER = """
graph (float[N, 2] x) => (float[N, 1] y)
<float[1, 2] w = {1, 1}, float[1] k = {-3}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    c = Gemm <transB = 1> (q, w)
    d = Add (c, k)
    y = onnx_fhe.Decrypt <low = -10, high = 10> (d)
}
"""


def test_layers_that_meet_become_one() -> None:
    """Noise of a linear operator's outputs is correlated, and Concrete would count too little of it."""
    become(MEETING, MEETING_AFTER, "remove-identity-tables")


UNREACHED = DENSE.replace("t1 = {0, 2, 4, 6}", "t1 = {0, 2, 4, 7}").replace("high = 3> (x)", "high = 2> (x)")


def test_only_entries_that_can_be_reached_count() -> None:
    wanted = DENSE_AFTER.replace("t1 = {0, 2, 4, 6}", "t1 = {0, 2, 4, 7}").replace(
        "high = 3> (x)", "high = 2> (x)"
    )
    become(UNREACHED, wanted, "remove-identity-tables")


STEP = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1] four = {4}, float[1, 4] t = {1, 9, 17, 25}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Mul (q, four)
    b = onnx_fhe.TableLookup <step = 4, axis = 1> (a, t, f)
    y = onnx_fhe.Decrypt <low = 0, high = 31> (b)
}
"""
STEP_AFTER = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1] four = {4}, float[1] two = {2}, float[1] one = {1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Mul (q, four)
    b = Mul (a, two)
    c = Add (b, one)
    y = onnx_fhe.Decrypt <low = 0, high = 31> (c)
}
"""


def test_steps_count_where_inputs_are_known_to_be_multiples() -> None:
    become(STEP, STEP_AFTER, "remove-identity-tables")


KEPT = {
    "inputs may fall between two entries": STEP.replace("four = {4}", "four = {3}"),
    "the table is no line with whole slope and offset": DENSE.replace(
        "t1 = {0, 2, 4, 6}", "t1 = {0, 2, 4, 5}"
    ),
    "rounding itself needs the bootstrap": """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 5] t = {0, 2, 4, 6, 8}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 7> (x)
    r = onnx_fhe.RoundBits <lsbs_to_remove = 1, mode = "exact"> (q)
    a = onnx_fhe.TableLookup <step = 2, axis = 1> (r, t, f)
    y = onnx_fhe.Decrypt <low = 0, high = 8> (a)
}
""",
    "two linear operators would meet that do not compose": """
graph (float[N, 1, 6] x) => (float[N, 1, 2] y)
<float[1, 1, 3] w = {1, 1, 1}, float[1, 10] t = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Conv (q, w)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t, f)
    c = Conv (b, w)
    y = onnx_fhe.Decrypt <low = 0, high = 27> (c)
}
""",
}


@pytest.mark.parametrize("reason", KEPT)
def test_a_table_stays(reason: str) -> None:
    become(KEPT[reason], KEPT[reason], "remove-identity-tables")
    assert reason in refused(KEPT[reason], RemoveAffine)


def test_a_slope_that_is_not_whole_stays() -> None:
    text = STEP.replace("{1, 9, 17, 25}", "{0, 1, 2, 3}")
    become(text, text, "remove-identity-tables")
    assert refused(text, RemoveAffine) == {"the table is no line with whole slope and offset"}


def test_a_table_before_a_sum_of_two_tensors_goes_too() -> None:
    text = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t1 = {-1, 0, 1, 2}, float[1, 4] t2 = {3, 0, 2, 1}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f)
    d = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t2, f)
    s = Add (a, d)
    y = onnx_fhe.Decrypt <low = -1, high = 5> (s)
}
"""
    after = check_exact(load(text), "remove-identity-tables")
    assert [n.op_type for n in after.graph] == ["Encrypt", "TableLookup", "Add", "Add", "Decrypt"]
