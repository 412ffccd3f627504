"""merge-tables: before and after, in ONNX text."""

from __future__ import annotations

from onnx_fhe.passes.tables.merge_tables import Merge
from onnx_fhe.testing import texts
from onnx_fhe.testing.texts import become, load, lookups

CHAIN = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t1 = {3, 1, 0, 2}, float[1] f1 = {0}, float[1] k = {1}, float[1] m = {2},
 float[1, 7] t2 = {0, 1, 4, 2, 1, 0, 5}, float[1] f2 = {2}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f1)
    b = Mul (a, m)
    c = Sub (b, k)
    d = Sub (k, c)
    e = Neg (d)
    f = Add (e, m)
    g = onnx_fhe.TableLookup <step = 1, axis = 1> (f, t2, f2)
    y = onnx_fhe.Decrypt <low = 0, high = 5> (g)
}
"""
# a = 3 1 0 2; c = 2a - 1; e = c - 1; f = c + 1 = 2a; index 2a - 2
MERGED = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t = {1, 0, 0, 4}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    g = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t, f)
    y = onnx_fhe.Decrypt <low = 0, high = 5> (g)
}
"""


def test_tables_merge_through_constants() -> None:
    merged = become(CHAIN, MERGED, "merge-tables")
    assert lookups(load(CHAIN)) == 4
    assert lookups(merged) == 2


LAYOUT = """
graph (float[N, 2, 2] x) => (float[N, 4] y)
<float[2, 4] t1 = {0, 1, 2, 3, 3, 2, 1, 0}, float[2] f1 = {0, 0}, int64[2] shape = {0, 4},
 float[1, 4] t2 = {5, 6, 7, 8}, float[1] f2 = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f1)
    b = Transpose <perm = [0, 2, 1]> (a)
    c = Reshape (b, shape)
    d = onnx_fhe.TableLookup <step = 1, axis = 1> (c, t2, f2)
    y = onnx_fhe.Decrypt <low = 5, high = 8> (d)
}
"""
LAYOUT_MERGED = """
graph (float[N, 2, 2] x) => (float[N, 4] y)
<int64[2] shape = {0, 4}, float[4, 4] t = {5, 6, 7, 8, 8, 7, 6, 5, 5, 6, 7, 8, 8, 7, 6, 5},
 float[4] f = {0, 0, 0, 0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    b = Transpose <perm = [0, 2, 1]> (q)
    c = Reshape (b, shape)
    d = onnx_fhe.TableLookup <step = 1, axis = 1> (c, t, f)
    y = onnx_fhe.Decrypt <low = 5, high = 8> (d)
}
"""


def test_tables_merge_behind_layout_operators() -> None:
    become(LAYOUT, LAYOUT_MERGED, "merge-tables")


ROUNDED = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t1 = {0, 3, 5, 7}, float[1] f1 = {0}, float[1, 3] t2 = {1, 2, 3}, float[1] f2 = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 7> (x)
    r = onnx_fhe.RoundBits <lsbs_to_remove = 1, mode = "approximate"> (q)
    a = onnx_fhe.TableLookup <step = 2, axis = 1> (r, t1, f1)
    s = onnx_fhe.RoundBits <lsbs_to_remove = 2, mode = "approximate"> (a)
    b = onnx_fhe.TableLookup <step = 4, axis = 1> (s, t2, f2)
    y = onnx_fhe.Decrypt <low = 1, high = 3> (b)
}
"""
ROUNDED_MERGED = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t = {1, 2, 2, 3}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 7> (x)
    r = onnx_fhe.RoundBits <lsbs_to_remove = 1, mode = "approximate"> (q)
    b = onnx_fhe.TableLookup <step = 2, axis = 1> (r, t, f)
    y = onnx_fhe.Decrypt <low = 1, high = 3> (b)
}
"""


def test_the_second_rounding_goes_into_the_merged_table() -> None:
    become(ROUNDED, ROUNDED_MERGED, "merge-tables")


WIDE_FIRST = """
graph (float[N, 2] x) => (float[N, 2] y, float[N, 2] z)
<float[1, 64] t1 = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1,
 2, 3,
 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3},
 float[1] f1 = {0},
 float[1, 4] t2 = {1, 0, 1, 0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 63> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f1)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t2, f1)
    y = onnx_fhe.Decrypt <low = 0, high = 3> (a)
    z = onnx_fhe.Decrypt <low = 0, high = 1> (b)
}
"""


def test_a_table_does_not_merge_with_a_wide_one_that_stays_for_others() -> None:
    become(WIDE_FIRST, WIDE_FIRST, "merge-tables")


TWO_AXES = """
graph (float[N, 2, 2] x) => (float[N, 2, 2] y)
<float[2, 2] t1 = {0, 1, 1, 0}, float[2] f = {0, 0}, float[2, 2] t2 = {0, 3, 5, 7}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 1> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f)
    b = onnx_fhe.TableLookup <step = 1, axis = 2> (a, t2, f)
    y = onnx_fhe.Decrypt <low = 0, high = 7> (b)
}
"""


def test_tables_along_two_axes_stay() -> None:
    become(TWO_AXES, TWO_AXES, "merge-tables")
    reason = "no one axis tells the merged tables apart, or they would be too large"
    assert reason in texts.refused(TWO_AXES, Merge)
