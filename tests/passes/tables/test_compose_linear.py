"""compose-linear: before and after, in ONNX text, on both levels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fhe.analysis.regions.region_analysis import find_regions
from onnx_fhe.ir import runtime
from onnx_fhe.ir.level import Level
from onnx_fhe.passes import PassManager
from onnx_fhe.passes.framework.rewriting import refusals
from onnx_fhe.passes.tables.compose_linear import ComposeFloat
from onnx_fhe.testing.texts import become, load, lookups

DENSE = """
graph (float[N, 2] x) => (float[N, 1] y)
<float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, -1}, float[1, 2] v = {1, 1}, float[1] c = {5}>
{
    h = Gemm <transB = 1> (x, w, b)
    y = Gemm <transB = 1> (h, v, c)
}
"""
DENSE_AFTER = """
graph (float[N, 2] x) => (float[N, 1] y)
<float[1, 2] w = {4, 6}, float[1] b = {5}>
{
    y = Gemm <transB = 1> (x, w, b)
}
"""


def test_dense_layers() -> None:
    become(DENSE, DENSE_AFTER, "compose-linear", Level.FLOAT)


def conv(x: str, weights: str, kernel: int, pad: int = 0, stride: int = 1, extra: str = "") -> str:
    return (
        f"Conv <dilations = [1, 1], group = 1, kernel_shape = [{kernel}, {kernel}],"
        f" pads = [{pad}, {pad}, {pad}, {pad}], strides = [{stride}, {stride}]> ({x}, {weights}{extra})"
    )


def random_model(body: list[str], constants: dict[str, tuple[int, ...]], output: str) -> ir.Model:
    """A float model with random weights; ``x`` is 2 x 6 x 6."""
    random = np.random.default_rng(0)
    declared = []
    for name, shape in constants.items():
        numbers = ", ".join(f"{v:.3f}" for v in random.normal(size=int(np.prod(shape))))
        declared.append(f"float[{', '.join(map(str, shape))}] {name} = {{{numbers}}}")
    text = f"graph (float[N, 2, 6, 6] x) => (float[N, {output}] y)\n<{', '.join(declared)}>\n"
    text += "{\n" + "\n".join(body) + "\n}"
    model: ir.Model = load(text, Level.FLOAT)
    return model


POOLING = "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (h)"
Case = tuple[list[str], dict[str, tuple[int, ...]], str, int]
CASES: dict[str, Case] = {
    "a point behind": (
        [f"h = {conv('x', 'w', 3, 1, 2, ', b')}", f"y = {conv('h', 'v', 1, extra=', c')}"],
        {"w": (3, 2, 3, 3), "b": (3,), "v": (2, 3, 1, 1), "c": (2,)},
        "2, 3, 3",
        1,
    ),
    "a point in front": (
        [f"h = {conv('x', 'w', 1)}", f"y = {conv('h', 'v', 3, 1, 1, ', c')}"],
        {"w": (3, 2, 1, 1), "v": (2, 3, 3, 3), "c": (2,)},
        "2, 6, 6",
        1,
    ),
    "a point with bias in front, no padding": (
        [f"h = {conv('x', 'w', 1, extra=', b')}", f"y = {conv('h', 'v', 3, 0, 2)}"],
        {"w": (3, 2, 1, 1), "b": (3,), "v": (2, 3, 3, 3)},
        "2, 2, 2",
        1,
    ),
    "average pooling": (
        [f"h = {conv('x', 'w', 3, 1, 1, ', b')}", POOLING],
        {"w": (3, 2, 3, 3), "b": (3,)},
        "3, 3, 3",
        1,
    ),
    "constants between": (
        [f"h = {conv('x', 'w', 3, 1)}", "g = Mul (h, s)", "k = Add (g, t)", f"y = {conv('k', 'v', 1)}"],
        {"w": (3, 2, 3, 3), "s": (3, 1, 1), "t": (1, 3, 1, 1), "v": (2, 3, 1, 1)},
        "2, 6, 6",
        1,
    ),
    "dense behind": (
        [f"h = {conv('x', 'w', 3, 0, 2, ', b')}", "f = Flatten (h)", "y = Gemm <transB = 1> (f, v, c)"],
        {"w": (8, 2, 3, 3), "b": (8,), "v": (4, 32), "c": (4,)},
        "4",
        2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_composes(name: str) -> None:
    body, constants, output, count = CASES[name]
    model = random_model(body, constants, output)
    data = {"x": np.random.default_rng(1).normal(size=(8, 2, 6, 6)).astype(np.float32)}
    before = runtime.run(model, data)["y"]
    result = PassManager.parse("compose-linear{growth=4}")(model)
    assert result.modified
    np.testing.assert_allclose(runtime.run(result.model, data)["y"], before, rtol=1e-4, atol=1e-4)
    assert len(list(result.model.graph)) == count
    assert not PassManager.parse("compose-linear{growth=4}")(result.model).modified


def test_matrices_of_any_rank() -> None:
    body = ["a = MatMul (x, w)", "b = Add (a, p)", "c = MatMul (b, v)", "y = Relu (c)"]
    model = random_model(body, {"w": (6, 4), "p": (4,), "v": (4, 3)}, "2, 6, 3")
    data = {"x": np.random.default_rng(1).normal(size=(8, 2, 6, 6)).astype(np.float32)}
    before = runtime.run(model, data)["y"]
    after = PassManager.parse("compose-linear")(model).model
    np.testing.assert_allclose(runtime.run(after, data)["y"], before, rtol=1e-4, atol=1e-4)
    assert [n.op_type for n in after.graph] == ["MatMul", "Add", "Relu"]


KEPT = {
    "the composed operator would have too many weights": (
        "h = Gemm <transB = 1> (x, w)\ny = Gemm <transB = 1> (h, v)", "10", "1", "10"),
    "it reads no linear operator that it composes with": (
        "h = Gemm <transB = 1> (x, w)\nr = Relu (h)\ny = Gemm <transB = 1> (r, v)", "2", "2", "2"),
}  # fmt: skip


@pytest.mark.parametrize("reason", KEPT)
def test_layers_stay(reason: str) -> None:
    body, a, b, c = KEPT[reason]
    w = ", ".join(["1"] * (int(a) * int(b)))
    text = f"graph (float[N, {a}] x) => (float[N, {c}] y)\n<float[{b}, {a}] w = {{{w}}},"
    text += f" float[{c}, {b}] v = {{{w}}}>\n"
    text += f"{{\n{body}\n}}"
    become(text, text, "compose-linear", Level.FLOAT)
    model = load(text, Level.FLOAT)
    assert reason == refusals(model.graph, [ComposeFloat(model, 2.0)])[-1][2]


def test_a_bias_under_a_padded_convolution_stays() -> None:
    """The border would see a bias that is not there: a convolution has one bias for all positions."""
    body = [f"h = {conv('x', 'w', 1, extra=', b')}", f"y = {conv('h', 'v', 3, 1)}"]
    model = random_model(body, {"w": (3, 2, 1, 1), "b": (3,), "v": (2, 3, 3, 3)}, "2, 6, 6")
    assert not PassManager.parse("compose-linear")(model).modified
    reasons = [r for _, _, r in refusals(model.graph, [ComposeFloat(model, 2.0)])]
    assert reasons[-1] == "what is added differs within a channel, so it is no bias"


def test_a_requantization_is_saved() -> None:
    """Between two dense layers every neuron would take a lookup; composed, the network needs none of them."""
    text = DENSE.replace(
        "y = Gemm <transB = 1> (h, v, c)",
        "g = Gemm <transB = 1> (h, v, c)\n r = Relu (g)\n y = Gemm <transB = 1> (r, c1)",
    ).replace("<float[2, 2] w", "<float[1, 1] c1 = {2}, float[2, 2] w")
    model = load(text, Level.FLOAT)
    assert [str(v.name) for v in find_regions(model).quantized] == ["h", "r"]
    model = PassManager.parse("compose-linear")(model).model
    assert [str(v.name) for v in find_regions(model).quantized] == ["r"]

    def bootstraps(pipeline: str) -> int:
        data = {"x": np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)}
        from onnx_fhe.passes.framework.base import Context

        rest = f"normalize,{pipeline}quantize{{weights=3 activations=3 inputs=3}},lower-to-integer,fuse-tlu"
        made = PassManager.parse(rest).run(load(text, Level.FLOAT), Context(calibration=data)).model
        return int(lookups(made))

    assert (bootstraps(""), bootstraps("compose-linear,")) == (3, 1)


INTEGER = """
graph (float[N, 2] x) => (float[N, 1] y)
<float[2, 2] w = {1, 2, 0, 1}, float[2] k = {3, 4}, float[1, 2] v = {1, -1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = Add (a, k)
    c = Gemm <transB = 1> (b, v)
    y = onnx_fhe.Decrypt <low = -10, high = 10> (c)
}
"""
INTEGER_AFTER = """
graph (float[N, 2] x) => (float[N, 1] y)
<float[1, 2] w = {1, 1}, float[1] k = {-1}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    c = Gemm <transB = 1> (q, w)
    d = Add (c, k)
    y = onnx_fhe.Decrypt <low = -10, high = 10> (d)
}
"""


def test_integer_layers_compose_exactly() -> None:
    become(INTEGER, INTEGER_AFTER, "compose-linear")
