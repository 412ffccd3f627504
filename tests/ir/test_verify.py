"""The rules of the levels: what keeps them passes, and each broken one names its node."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from onnx_fhe.ir.errors import LimitError, UnsupportedError, VerificationError
from onnx_fhe.ir.load import load as load_file
from onnx_fhe.ir.names import name_nodes
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.state import NORMALIZED_KEY
from onnx_fhe.ir.verify import verify


def model_of(graph: str, level: str = "", normalized: bool = False) -> ir.Model:
    imports = f'"": {target_opset()}' + (', "onnx_fhe": 1' if "onnx_fhe." in graph else "")
    model = ir.from_proto(
        parser.parse_model(f"<ir_version: {target_ir_version()}, opset_import: [{imports}]>\n{graph}")
    )
    name_nodes(model)
    if level:
        model.metadata_props["onnx_fhe.level"] = level
    if normalized:
        model.metadata_props[NORMALIZED_KEY] = "true"
    return model


def broken(model: ir.Model, rule: str, node: str) -> None:
    with pytest.raises(VerificationError, match=rule) as caught:
        verify(model)
    assert caught.value.where.node == node


CIRCUIT = """g (float[N,3] x) => (float[N,2] y)
<float[2,3] w = {{1, -2, 3, 0, 7, -7}}, float[2] offset = {{12, 13}}, float[2] c = {{2, 1}},
 float[2,4] table = {{0, 1, 1, 0, 3, 2, 1, 0}}, float[2] first = {{0, 0}}, float half = {{0.5}}> {{
    s = Mul(x, half)
    e = onnx_fhe.Encrypt<low = 0, high = 3>(s)
    a = {linear}
    o = Add(a, offset)
    r = onnx_fhe.RoundBits<lsbs_to_remove = {lsbs}, mode = "exact">(o)
    t = onnx_fhe.TableLookup<step = 8, axis = 1>({source}, table, first)
    m = Mul(t, c)
    {extra}
    d = onnx_fhe.Decrypt<low = 0, high = 6>(m)
    y = Softmax(d)
}}"""


def circuit(linear="Gemm<transB = 1>(e, w)", lsbs=3, source="r", extra="") -> ir.Model:
    model = model_of(CIRCUIT.format(linear=linear, lsbs=lsbs, source=source, extra=extra))
    # Shapes as analyses leave them: a table is checked against its channels.
    for node in model.graph:
        node.outputs[0].dtype = node.outputs[0].dtype or ir.DataType.FLOAT
        if node.outputs[0].shape is None and node.op_type not in ("Mul", "Encrypt"):
            node.outputs[0].shape = ir.Shape(["N", 2])
    return model


def set_initializer(model: ir.Model, name: str, array) -> None:
    model.graph.initializers[name].const_value = ir.tensor(np.asarray(array, np.float32), name=name)
    model.graph.initializers[name].shape = ir.Shape(np.shape(array))


def test_a_circuit_that_keeps_the_rules():
    verify(circuit())
    verify(circuit(extra="u = Neg(t)  v = Sub(m, u)  w2 = Flatten(v)"))


@pytest.mark.parametrize("extra", ["q = Relu(t)", "q = Sqrt(m)", "q = Div(t, c)", "q = Softmax(t)"])
def test_operators_that_no_circuit_computes(extra):
    model = circuit(extra=extra)
    broken(model, "no circuit computes", model.graph[-3].name)


def test_what_waits_for_its_table_may_be_float():
    graph = """g (float[N,3] x) => (float[N,2] y)
    <float[3,2] w = {1, -2, 3, 0, 7, -7}, float[2] c = {0.5, 0.25}, float s = {1},
     uint8 z = {0}, uint8 top = {7}> {
        e = onnx_fhe.Encrypt<low = 0, high = 3>(x)
        a = MatMul(e, w)
        m = Mul(a, c)
        t = Tanh(m)
        q = QuantizeLinear(t, s, z)
        k = Clip(q, z, top)
        f = Cast<to = 1>(k)
        n = Neg(f)
        y = onnx_fhe.Decrypt<low = -7, high = 0>(n)
    }"""
    verify(model_of(graph))
    broken(model_of(graph.replace("1, -2, 3", "1, -2.5, 3")), "not an integer", "MatMul")
    broken(model_of(graph.replace("Neg(f)", "Sin(f)")), "no circuit computes", "Sin")


def test_float_values_do_not_reach_the_circuit():
    broken(circuit(extra="q = Add(t, x)"), "an encrypted value meets a clear one", "Add_1")


def test_a_product_of_two_encrypted_values_is_bounded_too():
    verify(circuit(extra="q = Mul(t, m)"))
    with pytest.raises(LimitError, match="too large"):
        verify(circuit(extra="q = Mul(t, m)  q1 = Mul(q, q)  q2 = Mul(q1, q1)  q3 = Mul(q2, q2)"))


def test_weights_are_not_encrypted():
    broken(circuit(linear="Gemm<transB = 1>(e, e)"), "linear operator of two encrypted", "Gemm")


def test_what_moves_elements_only_moves_them():
    verify(circuit(extra="q = Concat<axis = 1>(t, m)"))
    broken(circuit(extra="q = Concat<axis = 0>(t, t)"), "computes, or mixes samples", "Concat")


def test_a_bias_is_an_add():
    broken(circuit(linear="Gemm<transB = 1>(e, w, offset)"), "has a bias", "Gemm")


def test_a_gemm_has_one_form():
    model = circuit(linear="Gemm<alpha = 2.0, transB = 1>(e, w)")
    broken(model, "not in its one form", "Gemm")


@pytest.mark.parametrize("name", ["w", "table", "c"])
def test_constants_are_integers(name):
    model = circuit()
    array = model.graph.initializers[name].const_value.numpy().copy()
    array.flat[0] += 0.5
    set_initializer(model, name, array)
    with pytest.raises(VerificationError, match="not an integer") as caught:
        verify(model)
    assert repr(name) in caught.value.found


def test_rounding_stands_before_tables_only():
    broken(circuit(extra="q = Neg(r)"), "not directly before", "RoundBits")
    broken(circuit(source="o"), "not directly before", "RoundBits")
    broken(circuit(lsbs=2), "step of a table", "TableLookup")


def test_tables_have_the_right_shape():
    model = circuit()
    set_initializer(model, "first", [0, 0, 0])
    broken(model, "wrong shape", "TableLookup")
    model = circuit()
    set_initializer(model, "table", np.zeros((3, 4)))
    set_initializer(model, "first", [0, 0, 0])
    broken(model, "differ in number", "TableLookup")
    model = circuit()
    set_initializer(model, "first", [0, 3])
    broken(model, "off the grid", "TableLookup")


def test_what_waits_for_its_table_may_be_any_float_operator():
    graph = """g (float[N, 2] x) => (float[N, 2] y)
    <float[2, 2] w = {1, 2, 3, 4}, float s = {0.5}, uint8 z = {0}, float half = {0.25}> {
        e = onnx_fhe.Encrypt <low = 0, high = 3> (x)
        a = Gemm <transB = 1> (e, w)
        f = Mul(a, s)
        big = Greater(f, half)
        mask = Cast <to = 1> (big)
        g = Mul(f, mask)
        q = QuantizeLinear(g, s, z)
        c = Cast <to = 1> (q)
        b = Gemm <transB = 1> (c, w)
        %s
        y = onnx_fhe.Decrypt <low = 0, high = 999> (%s)
    }"""
    verify(model_of(graph % ("", "b"), "integer"))
    broken(model_of(graph % ("h = Mul(b, s)", "h"), "integer"), "not an integer", "Mul_2")


def test_what_is_encrypted_is_decrypted():
    model = circuit()
    product = model.graph[-3].outputs[0]
    product.shape = ir.Shape(["N", 2])
    model.graph.outputs.append(product)
    broken(model, "leaves the model", "Mul_1")
    twice = """g (float[N] x) => (float[N] y) {
        e = onnx_fhe.Encrypt(x)  d = onnx_fhe.Decrypt(e)  f = onnx_fhe.Encrypt(d)  y = onnx_fhe.Decrypt(f)
    }"""
    with pytest.raises(UnsupportedError, match="depends on a decrypted one") as refused:
        verify(model_of(twice))
    assert refused.value.where.node == "Encrypt_1"
    broken(model_of("g (float[N] x) => (float[N] y) { y = onnx_fhe.Decrypt(x) }"), "not encrypted", "Decrypt")
    broken(model_of("g (float[N] x) => (float[N] y) { y = onnx_fhe.RoundBits(x) }"), "outside", "RoundBits")
    with pytest.raises(VerificationError, match="no encrypted part"):
        verify(model_of("g (float[N] x) => (float[N] y) { y = Relu(x) }", "integer"))


def test_a_declared_range_is_a_range():
    graph = (
        "g (float[N] x) => (float[N] y) { e = onnx_fhe.Encrypt<low=5, high=2>(x) y = onnx_fhe.Decrypt(e) }"
    )
    broken(model_of(graph), "no range", "Encrypt")


@pytest.mark.parametrize("weight", [2**24 // 3 // 64, 2**24 // 3 // 64 - 100])
def test_sums_stay_exact(weight):
    model = model_of(
        """g (float[N,64] x) => (float[N,1] y) <float[64,1] w = {0}> {
        e = onnx_fhe.Encrypt<low = 0, high = 3>(x)
        a = MatMul(e, w)
        y = onnx_fhe.Decrypt<low = 0, high = 1>(a)
    }""".replace("{0}", "{" + ", ".join(["1"] * 64) + "}")
    )
    # The result may be small: what counts is the sum on the way.
    set_initializer(model, "w", np.where(np.arange(64) % 2, weight, -weight)[:, None])
    verify(model)
    set_initializer(model, "w", np.full((64, 1), weight + 200.0))
    with pytest.raises(LimitError, match="too large to be exact") as caught:
        verify(model)
    assert caught.value.where.node == "MatMul"


QDQ = """g (float[N,2] x) => (float[N,2] y)
<float s = {0.5}, uint8 z = {0}, int8[2,2] w = {1, -2, 3, 4}, float[2] ws = {0.1, 0.2}, int8[2] wz = {0, 0}> {
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    v = DequantizeLinear<axis = 0>(w, ws, wz)
    y = MatMul(d, v)
}"""


def test_qdq():
    verify(model_of(QDQ, normalized=True))
    for bad in ([0.1, 0.0], [0.1, -1], [np.nan, 1], [np.inf, 1]):
        model = model_of(QDQ)
        set_initializer(model, "ws", bad)
        broken(model, "positive and finite", "DequantizeLinear_1")
    model = model_of(QDQ)
    set_initializer(model, "ws", [1, 1, 1])
    broken(model, "differ in number", "DequantizeLinear_1")


def test_qdq_weights_are_int8_once_normalized():
    graph = QDQ.replace("int8[2,2] w = {1, -2", "uint8[2,2] w = {1, 2").replace("int8[2] wz", "uint8[2] wz")
    verify(model_of(graph))
    broken(model_of(graph, normalized=True), "not int8", "DequantizeLinear_1")


@pytest.mark.parametrize(
    ("body", "rule", "node"),
    [
        ("h = Identity(x)  y = Relu(h)", "Identity", "Identity"),
        ("h = Dropout(x)  y = Relu(h)", "Dropout", "Dropout"),
        ("y = Gemm(x, w, b)", "one form", "Gemm"),
        ("y = Gemm<transB = 1>(x, w)", "no bias", "Gemm"),
    ],
)
def test_the_canonical_form_is_checked_once_normalized(body, rule, node):
    weights = "<float[2,2] w = {1, 2, 3, 4}, float[2] b = {0, 0}>"
    graph = f"g (float[N,2] x) => (float[N,2] y) {weights} {{ {body} }}"
    verify(model_of(graph))
    broken(model_of(graph, normalized=True), rule, node)


def test_conv_attributes_are_explicit_once_normalized():
    graph = """g (float[N,1,4,4] x) => (float[N,1,4,4] y) <float[1,1,3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
        y = Conv<pads = [1, 1, 1, 1]>(x, w)
    }"""
    broken(model_of(graph, normalized=True), "left open", "Conv")


def test_names():
    model = model_of("g (float[N] x) => (float[N] y) { h = Relu(x)  y = Relu(h) }")
    verify(model)
    model.graph[1].name = "Relu"
    broken(model, "same name", "Relu")
    model.graph[1].name = ""
    with pytest.raises(VerificationError, match="no name"):
        verify(model)


def test_a_float_model_has_no_circuit_operators():
    graph = "g (float[N] x) => (float[N] y) { y = onnx_fhe.Encrypt(x) }"
    broken(model_of(graph, "float"), "integer level in a model of another", "Encrypt")


def test_a_model_that_is_no_onnx():
    model = model_of("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    model.graph[0].op_type = "Unheard"
    with pytest.raises(VerificationError, match="not valid ONNX"):
        verify(model)


def test_weights_are_left_out_between_passes(digits_mlp, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_file(digits_mlp.model)
    sizes: list[int] = []
    check = onnx.checker.check_model

    def watched(proto: onnx.ModelProto) -> None:
        sizes.append(proto.ByteSize())
        check(proto)

    monkeypatch.setattr(onnx.checker, "check_model", watched)
    verify(model)
    verify(model, whole=False)
    assert sizes[1] < sizes[0] / 5
    node = next(n for n in model.graph if n.op_type == "Gemm")
    node.attributes.add(ir.AttrInt64("nonsense", 1))
    for whole in (True, False):
        with pytest.raises(VerificationError, match="not valid ONNX"):
            verify(model, whole=whole)
