"""Operators of a plug-in's own domain: loaded, fused into tables, saved and run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

import onnx_fhe
from onnx_fhe.cli.app import main
from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir import functions
from onnx_fhe.ir.errors import ModelError
from onnx_fhe.ir.graph import is_dialect
from onnx_fhe.ir.plugins import loading as plugins
from onnx_fhe.ir.plugins import tlu_operators
from onnx_fhe.ir.plugins.loading import load_plugin
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.save import save
from onnx_fhe.passes import Context, PassManager

PLUGIN = '''
"""Two operators: one calls the other, and takes an attribute."""
from onnxscript import FLOAT, opset18 as op, script, values
from onnx_fhe.passes import register_tlu_operator

domain = values.Opset("my.domain", 1)

@register_tlu_operator
@script(domain, default_opset=op)
def Gate(x: FLOAT, beta: float = 1.0) -> FLOAT:
    return op.Sigmoid(x * beta)

@register_tlu_operator
@script(domain, default_opset=op)
def Swishy(x: FLOAT, beta: float = 1.5) -> FLOAT:
    return x * Gate(x, beta=beta) + 0.25
'''


def swishy(x: np.ndarray, beta: float) -> np.ndarray:
    return x / (1 + np.exp(-x * beta)) + 0.25


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plugins, "_plugins", {})
    monkeypatch.setattr(plugins, "_installed", True)
    monkeypatch.setattr(tlu_operators.registered, "entries", {})
    return


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "swishy.py"
    file.write_text(PLUGIN)
    return file


def network(op_type: str = "Swishy", opset: int = 17, *, at_the_end: bool = False) -> onnx.ModelProto:
    """Gemm, the operator, Gemm; ``at_the_end``: the operator again, on the client."""
    random = np.random.default_rng(0)
    weights = {
        "w0": random.normal(0, 0.5, (6, 4)),
        "b0": random.normal(0, 0.2, 6),
        "w1": random.normal(0, 0.5, (3, 6)),
        "b1": random.normal(0, 0.2, 3),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], name="/first", transB=1),
        helper.make_node(op_type, ["h"], ["a"], name="/act", domain="my.domain", beta=2.0),
        helper.make_node("Gemm", ["a", "w1", "b1"], ["z"], name="/second", transB=1),
    ]
    if at_the_end:
        nodes.append(helper.make_node(op_type, ["z"], ["y"], name="/end", domain="my.domain"))
    else:
        nodes.append(helper.make_node("Relu", ["z"], ["y"], name="/end"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(a.astype(np.float32), k) for k, a in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my.domain", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def inputs(count: int = 300) -> np.ndarray:
    return np.random.default_rng(1).uniform(-2, 2, (count, 4)).astype(np.float32)


@pytest.mark.parametrize("opset", [11, 17, 21])
def test_the_table_equals_numpy(plugin: Path, tmp_path: Path, opset: int):
    load_plugin(str(plugin))
    onnx.save(network(opset=opset), tmp_path / "model.onnx")
    model = onnx_fhe.load(tmp_path / "model.onnx")
    assert not model.functions
    expected = swishy(
        inputs() @ model.graph.initializers["w0"].const_value.numpy().T
        + model.graph.initializers["b0"].const_value.numpy(),
        2.0,
    )
    found = run(model, {"x": inputs()}, ["a"])["a"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    quantized = "normalize,quantize{weights=6 activations=6 inputs=6},lower-to-integer"
    context = Context(calibration={"x": inputs()})
    before = PassManager.parse(quantized).run(model, context).model
    after = PassManager.parse("fuse-tlu").run(before, context).model
    (table,) = [n for n in after.graph if is_dialect(n, "TableLookup")]
    assert not [n for n in after.graph if n.domain == "my.domain"]

    # The scales that the table must hold, as they stand in the graph before fusing.
    def constant(name: str) -> np.ndarray:
        return before.graph.initializers[name].const_value.numpy().astype(np.float64)

    act = next(n for n in before.graph if n.name == "/act")
    shifted = act.inputs[0].producer()
    scale, offset = shifted.inputs[0].producer().inputs[1], shifted.inputs[1]
    chain = act.outputs[0].uses()[0].node
    unit = constant(chain.inputs[1].name) if chain.op_type == "Mul" else np.ones(1)
    quantizer = chain.outputs[0].uses()[0].node if chain.op_type == "Mul" else chain
    step, zero = constant(quantizer.inputs[1].name), constant(quantizer.inputs[2].name)
    values, first = (v.const_value.numpy().astype(np.float64) for v in table.inputs[1:])
    accumulators = first[:, None] + np.arange(values.shape[1])
    reals = swishy(accumulators * constant(scale.name).T + constant(offset.name).T, 2.0)
    exact = reals * unit.T / step
    wanted = np.clip(np.rint(exact + zero), 0, 63) - zero
    # A number half-way between two integers may go either way in float32.
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(values[clear], wanted[clear])


def test_a_model_with_custom_operators_is_saved_with_their_bodies(plugin: Path, tmp_path: Path):
    load_plugin(str(plugin))
    onnx.save(network(), tmp_path / "model.onnx")
    model = onnx_fhe.load(tmp_path / "model.onnx")
    save(model, tmp_path / "saved.onnx")
    saved = onnx.load(tmp_path / "saved.onnx")
    checker.check_model(saved, full_check=True)
    assert {f.name for f in saved.functions} == {"Gate", "Swishy"}
    again = onnx_fhe.load(tmp_path / "saved.onnx")
    assert [n.op_type for n in again.graph] == ["Gemm", "Swishy", "Gemm", "Relu"]
    wanted = run(model, {"x": inputs()})["y"]
    np.testing.assert_array_equal(run(again, {"x": inputs()})["y"], wanted)
    # Where the plug-in is not loaded the file's own bodies are used.
    tlu_operators.registered.entries.clear()
    without = onnx_fhe.load(tmp_path / "saved.onnx")
    assert not [n for n in without.graph if n.domain]
    np.testing.assert_array_equal(run(without, {"x": inputs()})["y"], wanted)


def test_another_body_in_the_file_keeps_its_meaning(plugin: Path, tmp_path: Path):
    load_plugin(str(plugin))
    model = network("Gate", 18)
    node = helper.make_node("Neg", ["x"], ["y"])
    model.functions.append(
        helper.make_function(
            "my.domain", "Gate", ["x"], ["y"], [node], [helper.make_opsetid("", 18)], ["beta"]
        )
    )
    onnx.save(model, tmp_path / "model.onnx")
    assert "Neg" in [n.op_type for n in onnx_fhe.load(tmp_path / "model.onnx").graph]


def test_shapes_are_inferred(plugin: Path):
    load_plugin(str(plugin))
    proto = network()
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_empty_tensor_value_info("a"))
    assert functions.body_of("my.domain", "Swishy") is not None
    found = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph.output[0].type.tensor_type
    assert [d.dim_param or d.dim_value for d in found.shape.dim] == ["N", 6]


def test_an_attribute_may_be_required(tmp_path: Path):
    file = tmp_path / "required.py"
    file.write_text(PLUGIN.replace("beta: float = 1.5", "beta: float"))
    load_plugin(str(file))
    onnx.save(network(), tmp_path / "model.onnx")
    found = run(onnx_fhe.load(tmp_path / "model.onnx"), {"x": inputs()})["y"]
    assert found.shape == (300, 3)
    onnx.save(network(at_the_end=True), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="not valid ONNX") as refused:
        onnx_fhe.load(tmp_path / "model.onnx")
    assert "beta" in refused.value.found


def test_an_operator_that_nobody_declares_is_refused(tmp_path: Path):
    onnx.save(network("Other"), tmp_path / "model.onnx")
    with pytest.raises(ModelError) as refused:
        onnx_fhe.load(tmp_path / "model.onnx")
    assert refused.value.where.node == "/act"
    assert "--plugin" in refused.value.do


def test_an_operator_that_mixes_elements_is_no_table(tmp_path: Path):
    file = tmp_path / "mixing.py"
    file.write_text(PLUGIN.replace("op.Sigmoid(x * beta)", "op.Softmax(x * beta)"))
    load_plugin(str(file))
    onnx.save(network(), tmp_path / "model.onnx")
    (finding,) = inspect_model(tmp_path / "model.onnx").findings
    assert (finding.node, finding.operator, finding.found) == ("/act", "Swishy", "Swishy mixes elements")


def cli(*arguments: object) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_a_model_with_a_custom_operator_compiles(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    onnx.save(network(at_the_end=True), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=inputs())
    pipeline = "quantize{weights=6 activations=6 inputs=6},lower-to-integer,fuse-tlu"
    compiled = ["compile", tmp_path / "model.onnx", "--calibration", tmp_path / "data.npz", "-p", pipeline]
    out = tmp_path / "model.fhe"
    assert cli(*compiled, "-o", out) == 1
    assert "--plugin" in capsys.readouterr().err
    status = cli(*compiled, "-o", out, "--plugin", plugin, "--backend", "reference", "--json")
    output = capsys.readouterr()
    assert status == 0, output.err
    (first, second) = json.loads(output.out)["layers"]
    assert (first["name"], first["programmable_bootstraps"]) == ("/first", 6)
    assert (second["name"], second["programmable_bootstraps"]) == ("/second", 0)

    # The artifact holds the bodies that its client needs: it runs where no plug-in is.
    tlu_operators.registered.entries.clear()
    plugins._plugins.clear()
    program = onnx_fhe.Program.load(out)
    assert not tlu_operators.registered_tlu_operators()
    found = program.run({"x": inputs()}).outputs["y"]
    load_plugin(str(plugin))
    wanted = run(onnx_fhe.load(tmp_path / "model.onnx"), {"x": inputs()})["y"]
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99
