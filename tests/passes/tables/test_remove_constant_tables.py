"""remove-constant-tables: before and after, in ONNX text."""

from __future__ import annotations

from onnx_fhe.passes.tables.remove_constant_tables import FoldConstant
from onnx_fhe.testing import texts
from onnx_fhe.testing.texts import become, check_exact, load, lookups

DENSE = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[3, 2] w = {1, 0, 1, 1, -1, -1}, float[3] k = {0, 1, 2}, float[3, 8] t = {0, 1, 2, 3, 4, 5, 6, 7,
 0, 1, 1, 2, 3, 3, 2, 1, 5, 5, 5, 5, 5, 5, 5, 7}, float[3] f = {0, 1, -4}, float[2, 3] w2 = {1, 2, 3, 0, 1,
 -1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = Add (a, k)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (b, t, f)
    d = Gemm <transB = 1> (c, w2)
    y = onnx_fhe.Decrypt <low = -20, high = 50> (d)
}
"""
# The third table ends in a 7, but its accumulator reaches 2 only.
DENSE_AFTER = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[2, 2] w = {1, 0, 1, 1}, float[2] k = {0, 1}, float[2, 8] t = {0, 1, 2, 3, 4, 5, 6, 7,
 0, 1, 1, 2, 3, 3, 2, 1}, float[2] f = {0, 1}, float[2, 2] w2 = {1, 2, 0, 1}, float[2] add = {15, -5}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = Add (a, k)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (b, t, f)
    d = Gemm <transB = 1> (c, w2)
    e = Add (d, add)
    y = onnx_fhe.Decrypt <low = -20, high = 50> (e)
}
"""


def test_a_neuron_whose_table_is_constant_on_what_reaches_it_goes() -> None:
    after = become(DENSE, DENSE_AFTER, "remove-constant-tables")
    assert (lookups(load(DENSE)), lookups(after)) == (3, 2)


IMAGE = """
graph (float[N, 1, 3, 3] x) => (float[N, 1] y, float[N, 1, 3, 3] z)
<float[2, 1, 1, 1] w = {1, 2}, float[2, 7] t = {1, 0, 2, 3, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2}, float[2] f = {0,
 0},
 float[1, 2, 3, 3] w2 = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, int64[2] shape = {0, 18},
 float[1, 18] w3 = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Conv <dilations = [1, 1], group = 1, kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1,
       1]> (q, w)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t, f)
    c = Conv <dilations = [1, 1], group = 1, kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1,
       1]> (b, w2)
    d = Reshape (b, shape)
    e = Gemm <transB = 1> (d, w3)
    y = onnx_fhe.Decrypt <low = 0, high = 200> (e)
    z = onnx_fhe.Decrypt <low = 0, high = 99> (c)
}
"""
IMAGE_AFTER = """
graph (float[N, 1, 3, 3] x) => (float[N, 1] y, float[N, 1, 3, 3] z)
<float[1, 1, 1, 1] w = {1}, float[1, 7] t = {1, 0, 2, 3, 0, 1, 2}, float[1] f = {0},
 float[1, 1, 3, 3] w2 = {1, 1, 1, 1, 1, 1, 1, 1, 1}, int64[2] shape = {0, 9},
 float[1, 9] w3 = {1, 1, 1, 1, 1, 1, 1, 1, 1}, float[1, 1, 3, 3] k = {8, 12, 8, 12, 18, 12, 8, 12, 8},
 float[1, 1] k2 = {90}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Conv <dilations = [1, 1], group = 1, kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1,
       1]> (q, w)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t, f)
    c = Conv <dilations = [1, 1], group = 1, kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1,
       1]> (b, w2)
    d = Reshape (b, shape)
    e = Gemm <transB = 1> (d, w3)
    h = Add (e, k2)
    y = onnx_fhe.Decrypt <low = 0, high = 200> (h)
    g = Add (c, k)
    z = onnx_fhe.Decrypt <low = 0, high = 99> (g)
}
"""


def test_a_channel_goes_with_all_its_readers_and_padding_stays_right() -> None:
    """Two readers, one of them behind a Reshape; the zeros around the image are not constant neurons."""
    become(IMAGE, IMAGE_AFTER, "remove-constant-tables")
    after = check_exact(load(IMAGE), "remove-constant-tables")
    assert (lookups(load(IMAGE)), lookups(after)) == (18, 9)


UNHEARD = DENSE.replace("w2 = {1, 2, 3, 0, 1,\n -1}", "w2 = {1, 0, 3, 1, 0, -1}")


def test_a_neuron_that_nobody_hears_goes() -> None:
    """The second, for both weights that read it are zero; the third is heard."""
    assert UNHEARD != DENSE
    after = check_exact(load(UNHEARD.replace("5, 5, 5, 5", "5, 4, 3, 5")), "remove-constant-tables")
    assert lookups(after) == 2


SHARED = """
graph (float[N, 2] x) => (float[N, 1] y, float[N, 2] z)
<float[2, 2] w = {1, 0, 1, 1}, float[2, 7] t = {3, 2, 1, 0, 1, 2, 3, 2, 2, 2, 2, 2, 2, 2}, float[2] f = {0,
 0},
 float[1, 2] w2 = {1, 2}, float[1, 7] t2 = {0, 1, 0, 2, 0, 3, 0}, float[1] f2 = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t, f)
    c = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t2, f2)
    d = Gemm <transB = 1> (b, w2)
    y = onnx_fhe.Decrypt <low = 0, high = 9> (d)
    z = onnx_fhe.Decrypt <low = 0, high = 3> (c)
}
"""


def test_a_layer_that_another_table_reads_too_stays_for_it() -> None:
    after = check_exact(load(SHARED), "remove-constant-tables")
    assert [n.op_type for n in after.graph].count("Gemm") == 3
    assert (lookups(load(SHARED)), lookups(after)) == (4, 3)


WHOLE = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t1 = {2, 2, 2, 2}, float[1, 4] t2 = {3, 0, 2, 1}, float[1] f = {0}, float[2, 2] w = {1, 2, 3, 4}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f)
    b = Gemm <transB = 1> (a, w)
    d = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t2, f)
    s = Add (d, b)
    y = onnx_fhe.Decrypt <low = 0, high = 20> (s)
}
"""
WHOLE_AFTER = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t2 = {3, 0, 2, 1}, float[1] f = {0}, float[1, 2] k = {6, 14}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    d = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t2, f)
    s = Add (d, k)
    y = onnx_fhe.Decrypt <low = 0, high = 20> (s)
}
"""


def test_a_constant_tensor_becomes_a_constant() -> None:
    become(WHOLE, WHOLE_AFTER, "remove-constant-tables")


def test_a_constant_that_would_be_decrypted_stays() -> None:
    text = """
graph (float[N, 2] x) => (float[N, 2] y)
<float[1, 4] t1 = {2, 2, 2, 2}, float[1] f = {0}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = onnx_fhe.TableLookup <step = 1, axis = 1> (q, t1, f)
    y = onnx_fhe.Decrypt <low = 0, high = 20> (a)
}
"""
    become(text, text, "remove-constant-tables")
    assert texts.refused(text, FoldConstant) == {"an operator behind cannot take the constant in"}
