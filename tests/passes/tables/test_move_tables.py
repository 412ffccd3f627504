"""move-tables: before and after, in ONNX text."""

from __future__ import annotations

from onnx_fhe.passes.tables.move_tables import MoveBehindSelection, PassPooling
from onnx_fhe.testing import texts
from onnx_fhe.testing.texts import become, check_exact, load, lookups

SLICED = """
graph (float[N, 4] x) => (float[N, 1] y)
<float[4, 4] t = {0, 1, 2, 3, 3, 2, 1, 0, 1, 1, 0, 0, 2, 0, 2, 0}, float[4] f = {0, 0, 0, 0},
 int64[1] a1 = {1},
 int64[1] a3 = {3}, int64[1] axis = {1}, int64[1] last = {-1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t, f)
    c = Slice (b, a1, a3, axis)
    d = Gather <axis = 1> (c, last)
    y = onnx_fhe.Decrypt <low = 0, high = 3> (d)
}
"""
SLICED_AFTER = """
graph (float[N, 4] x) => (float[N, 1] y)
<float[1, 4] t = {1, 1, 0, 0}, float[1] f = {0}, int64[1] a1 = {1},
 int64[1] a3 = {3}, int64[1] axis = {1}, int64[1] last = {-1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    c = Slice (q, a1, a3, axis)
    d = Gather <axis = 1> (c, last)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (d, t, f)
    y = onnx_fhe.Decrypt <low = 0, high = 3> (b)
}
"""


def test_a_table_goes_behind_what_drops_elements() -> None:
    after = become(SLICED, SLICED_AFTER, "move-tables")
    assert (lookups(load(SLICED)), lookups(after)) == (4, 1)


def test_a_table_whose_every_element_is_read_stays() -> None:
    text = (
        SLICED.replace("{-1}", "{0}")
        .replace("float[N, 1] y", "float[N, 1] y, float[N, 4] z")
        .replace("\n}", "\n    z = onnx_fhe.Decrypt <low = 0, high = 3> (b)\n}")
    )
    become(text, text, "move-tables")
    assert texts.refused(text, MoveBehindSelection) == {"all elements of the table are read"}


POOL = """
graph (float[N, 1, 4, 4] x) => (float[N, 1, 2, 2] y)
<float[1, 4] t = {0, 1, 1, 3}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t, f)
    c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
    y = onnx_fhe.Decrypt <low = 0, high = 3> (c)
}
"""
POOL_AFTER = """
graph (float[N, 1, 4, 4] x) => (float[N, 1, 2, 2] y)
<float[1, 4] t = {0, 1, 1, 3}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (c, t, f)
    y = onnx_fhe.Decrypt <low = 0, high = 3> (b)
}
"""


def test_a_rising_table_goes_behind_max_pooling() -> None:
    after = become(POOL, POOL_AFTER, "move-tables")
    assert (lookups(load(POOL)), lookups(after)) == (16 + 12, 12 + 4)
    check_exact(load(POOL), "move-tables")


def test_a_falling_table_stays_before_max_pooling() -> None:
    text = POOL.replace("{0, 1, 1, 3}", "{0, 2, 1, 3}")
    become(text, text, "move-tables")
    assert texts.refused(text, PassPooling) == {"the table falls somewhere"}


WIDE = ", ".join(str(i // 64) for i in range(256))
WIDE_POOL = POOL_AFTER.replace("float[1, 4] t = {0, 1, 1, 3}", f"float[1, 256] t = {{{WIDE}}}").replace(
    "high = 3> (x)", "high = 255> (x)"
)


def test_a_table_goes_in_front_of_max_pooling_where_that_then_takes_fewer_bits() -> None:
    """The pooling's own comparisons on eight bits would cost more than the lookups that are saved."""
    overlapping = WIDE_POOL.replace("strides = [2, 2]", "strides = [1, 1]").replace(
        "1, 2, 2] y", "1, 3, 3] y"
    )
    wanted = (
        POOL.replace("float[1, 4] t = {0, 1, 1, 3}", f"float[1, 256] t = {{{WIDE}}}")
        .replace("high = 3> (x)", "high = 255> (x)")
        .replace("strides = [2, 2]", "strides = [1, 1]")
        .replace("1, 2, 2] y", "1, 3, 3] y")
    )
    become(overlapping, wanted, "move-tables")


def test_concrete_counts_fewer_bootstraps_behind_a_slice() -> None:
    before = load(SLICED)
    assert (lookups(before), lookups(check_exact(before, "move-tables"))) == (4, 1)


def test_concrete_counts_fewer_bootstraps_behind_max_pooling() -> None:
    """Sixteen elements go into the pooling and four come out; its own twelve comparisons stay."""
    before = load(POOL)
    assert (lookups(before), lookups(check_exact(before, "move-tables"))) == (16 + 12, 4 + 12)
