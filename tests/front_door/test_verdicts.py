"""``inspect`` and ``compile`` say the same of a file: malformed or unusable ones are refused by both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

import onnx_fhe
from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.errors import ModelError, UnsupportedError, UserError

F, I64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
RANDOM = np.random.default_rng(0)
DATA = {"x": RANDOM.normal(0, 1, (24, 4)).astype(np.float32)}


def node(op: str, inputs: list[str], *outputs: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, list(outputs), outputs[0], **attributes)


def tensor(name: str, array: object, dtype: object = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def dense(
    middle: list[NodeProto] | None = None,
    weights: list[TensorProto] | tuple[()] = (),
    x: tuple = ("N", 4),
    y: tuple | None = ("N", 3),
    kinds: tuple[int, int] = (F, F),
    opset: int = 17,
    domain: str = "ai.onnx.ml",
) -> ModelProto:
    """Two dense layers and, between h and r, what is asked for."""
    nodes = [
        node("Gemm", ["x", "w"], "h"),
        *([node("Relu", ["h"], "r")] if middle is None else middle),
        node("Gemm", ["r", "v"], "y"),
    ]
    stored = [tensor("w", RANDOM.normal(size=(4, 5))), tensor("v", RANDOM.normal(size=(5, 3))), *weights]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kinds[0], x)],
        [helper.make_tensor_value_info("y", kinds[1], y)],
        stored,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def changed(change: Callable[[onnx.GraphProto], object]) -> ModelProto:
    model = dense()
    change(model.graph)
    return model


def info(name: str, shape: tuple, kind: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def cast(kind: int) -> list[NodeProto]:
    return [node("Cast", ["h"], "c", to=kind), node("Cast", ["c"], "r", to=F)]


FINE = {
    "a weight that is returned": changed(lambda g: g.output.append(info("w", (4, 5)))),
    "as it should be": dense(),
    "a batch that an inner value was once declared with": changed(
        lambda g: g.value_info.append(info("h", (9, 5)))
    ),
    "one sample where inner values were declared with two": changed(
        lambda g: (g.input[0].CopyFrom(info("x", (1, 4))), g.value_info.append(info("h", (2, 5))))
    ),
    "a weight that is declared as an input": changed(lambda g: g.input.append(info("v", (5, 3)))),
    "thresholds at infinity": dense(
        [node("Less", ["h", "t"], "l"), node("Cast", ["l"], "r", to=F)],
        [tensor("t", [0, np.inf, -np.inf, 0.3, 0.1])],
    ),
    "a cast to 8 bits and back": dense(cast(TensorProto.INT8)),
    "a cast to text and back, a function like any other": dense(cast(STRING)),
    "a sequence": dense(
        [node("SequenceConstruct", ["h", "h"], "q"), node("SequenceAt", ["q", "n"], "r")],
        [tensor("n", 0, np.int64)],
    ),
    "a mean that is added again": dense(
        [node("ReduceMean", ["h"], "m", axes=[1]), node("Add", ["m", "h"], "r")], opset=13
    ),
    "an input that is returned": changed(lambda g: g.output.append(info("x", ("N", 4)))),
}

REFUSED = {
    "another width of the output": dense(y=("N", 7)),
    "another rank of the output": dense(y=("N", 3, 1)),
    "an output of no axes": dense(y=()),
    "an output of no shape": dense(y=None),
    "an output of negative width": dense(y=("N", -3)),
    "another width of the input": dense(x=("N", 5)),
    "another rank of the input": dense(x=("N", 2, 2)),
    "an input of one axis": dense(x=("N",)),
    "an input of no rank": dense(x=None),
    "an input of no elements": dense(x=("N", 0)),
    "whole numbers for an output": dense(kinds=(F, I64)),
    "an unknown type for an output": dense(kinds=(F, 7777)),
    "text for an output": dense(kinds=(F, STRING)),
    "text for an input": dense(kinds=(STRING, F)),
    "whole numbers for an input": dense(kinds=(I64, F)),
    "another type of an inner value": changed(lambda g: g.value_info.append(info("h", ("N", 5), I64))),
    "text for an inner value": changed(lambda g: g.value_info.append(info("r", ("N", 5), STRING))),
    "another width of an inner value": changed(lambda g: g.value_info.append(info("h", ("N", 9)))),
    "another rank of an inner value": changed(lambda g: g.value_info.append(info("h", ("N", 5, 1)))),
    "another shape of a weight": changed(lambda g: g.input.append(info("v", (5, 4)))),
    "another type of a weight": changed(lambda g: g.input.append(info("v", (5, 3), I64))),
    "no first weight": changed(lambda g: g.initializer.pop(0)),
    "no last weight": changed(lambda g: g.initializer.pop(1)),
    "a weight of three axes": changed(lambda g: g.initializer[0].CopyFrom(tensor("w", np.ones((1, 4, 5))))),
    "a weight of whole numbers": changed(
        lambda g: g.initializer[0].CopyFrom(tensor("w", np.ones((4, 5)), np.int64))
    ),
    "one name for two outputs": changed(lambda g: g.output.append(info("y", ("N", 3)))),
    "an output that nobody makes": changed(lambda g: g.output.append(info("z", ("N", 3)))),
    "opset 0": dense(opset=0),
    "an opset to come": dense(opset=99),
    "an operator of a later opset": dense([node("Gelu", ["h"], "r")]),
    "an unknown operator": dense([node("Frobnicate", ["h"], "r")]),
    "an unknown domain": dense([node("Relu", ["h"], "r", domain="some.where")], domain="some.where"),
    "a cast to nothing": dense([node("Cast", ["h"], "r", to=0)]),
    "a cast to an unknown type": dense([node("Cast", ["h"], "r", to=999)]),
    "a reshape to another size": dense([node("Reshape", ["h", "s"], "r")], [tensor("s", [-1, 4], np.int64)]),
    "a sum of other widths": dense([node("Add", ["h", "b"], "r")], [tensor("b", np.ones(4))]),
    "a sum over samples": dense([node("ReduceMean", ["h"], "r", axes=[0])], opset=13),
    "a maximum over samples": dense([node("Softmax", ["h"], "r", axis=0)]),
    "the largest": dense([node("TopK", ["h", "k"], "r", "i")], [tensor("k", [5], np.int64)]),
    "a tensor of no known shape": dense([node("NonZero", ["h"], "z"), node("Cast", ["z"], "r", to=F)]),
    "a division of zero by zero": dense([node("Sub", ["h", "h"], "d"), node("Div", ["d", "d"], "r")]),
    "a threshold that is no number": dense(
        [node("Less", ["h", "t"], "l"), node("Cast", ["l"], "r", to=F)], [tensor("t", [np.nan] * 5)]
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_fine_is_fine_for_both(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(FINE[name], path)
    assert inspect_model(path).supported
    onnx_fhe.compile(path, DATA, backend="reference", accept_loss=True).save(tmp_path / "m.fhe")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_by_both(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(REFUSED[name].SerializeToString())
    with contextlib.suppress(UserError):
        found = inspect_model(path)
        assert not found.supported
        assert found.findings
        assert found.programmable_bootstraps is None
    with pytest.raises(UserError):
        onnx_fhe.compile(path, DATA, backend="reference", accept_loss=True)


CONTENT = dense().SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        CONTENT[:10],
        CONTENT[:-1],
        CONTENT + b"\xff\xff",
        b"\x89PNG\r\n\x1a\n",
        dense().graph.SerializeToString(),
    ],
    ids=["empty", "ten bytes", "cut", "more", "image", "graph"],
)
def test_what_is_no_model_is_refused_by_both(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for attempt in (inspect_model, lambda p: onnx_fhe.compile(p, DATA, backend="reference")):
        with pytest.raises(ModelError, match=r"m\.onnx"):
            attempt(path)


def tree(split: float) -> NodeProto:
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        "forest",
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[split, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )


@pytest.mark.parametrize("split", [np.inf, -np.inf, np.nan, 0.5])
def test_a_tree_is_refused_by_name_wherever_it_splits(split: float, tmp_path: Path) -> None:
    model = dense(y=("N", 1))
    del model.graph.node[:]
    model.graph.node.append(tree(split))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    for attempt in (inspect_model, lambda p: onnx_fhe.compile(p, DATA, backend="reference")):
        with pytest.raises(UnsupportedError, match="a tree compares") as caught:
            attempt(path)
        assert caught.value.where.node == "forest"
        assert "diverged" not in str(caught.value)


def test_splits_that_are_stored_as_a_tensor_may_be_infinite(tmp_path: Path) -> None:
    model = dense(y=("N", 1))
    model.opset_import[1].version = 5
    del model.graph.node[:]
    numbers = {key: [0] for key in ("nodes_featureids", "nodes_truenodeids", "tree_roots")}
    numbers |= {key: [1] for key in ("nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs")}
    forest = helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        "forest",
        domain="ai.onnx.ml",
        n_targets=1,
        leaf_targetids=[0, 0],
        nodes_splits=tensor("splits", [np.inf]),
        nodes_modes=tensor("modes", [0], np.uint8),
        leaf_weights=tensor("leaves", [1.0, 2.0]),
        **numbers,
    )
    assert {a.type for a in forest.attribute} >= {AttributeProto.TENSOR}
    model.graph.node.append(forest)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="a tree compares"):
        inspect_model(tmp_path / "m.onnx")
