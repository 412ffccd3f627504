"""Models whose operators the newest opset writes the same are relabelled: onnx's converter makes the same."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import version_converter

from onnx_fhe.ir import convert
from onnx_fhe.ir.opsets import target_opset

FOLDER = Path(__file__).parents[1] / "models"
FILES = sorted([*FOLDER.glob("exporters/*.onnx"), *FOLDER.glob("qat/*.onnx")])


def models(zoo) -> dict[str, onnx.ModelProto]:
    """Every network of the zoo and every file, by name."""
    made = {name: make() for name, make in zoo.NETWORKS.items()}
    return made | {path.stem: onnx.load(path) for path in FILES}


@pytest.fixture(scope="module")
def relabelled(zoo) -> dict[str, tuple[onnx.ModelProto, onnx.ModelProto]]:
    """Models that need no converter, and what ``convert`` makes of them."""
    return {
        name: (proto, convert.convert(proto))
        for name, proto in models(zoo).items()
        if convert._is_written_the_same(proto, convert.opset_of(proto))
    }


def test_the_converter_would_make_the_same(relabelled):
    assert len(relabelled) > 10
    for name, (proto, found) in relabelled.items():
        wanted = version_converter.convert_version(proto, target_opset())
        convert._restore_metadata(proto, wanted)
        assert convert.opset_of(found) == target_opset()
        assert list(found.graph.node) == list(wanted.graph.node), name
        assert list(found.graph.initializer) == list(wanted.graph.initializer), name
        assert list(found.graph.output) == list(wanted.graph.output), name
        described = {v.name: v for v in found.graph.value_info}
        assert all(described[v.name] == v for v in wanted.graph.value_info), name


@pytest.mark.parametrize(
    ("text", "opset", "same"),
    [
        ("y = Relu(x)", 13, True),
        ("y = Relu(x)", 12, False),
        ("y = ReduceMean<axes = [1]>(x)", 13, False),
        ("y = BatchNormalization(x, w, w, w, w)", 14, False),
        ("y = RandomNormalLike(x)", 22, False),
        ("y = other.Relu(x)", 13, False),
    ],
)
def test_where_anything_changed_the_converter_is_asked(text, opset, same):
    proto = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}, "other": 1]>
        g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {{1, 2}}> {{ {text} }}
    """)
    assert convert._is_written_the_same(proto, opset) is same
