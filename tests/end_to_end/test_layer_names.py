"""The names of the model's own nodes on the integer level: statistics and per-layer options go by them."""

from __future__ import annotations

import functools

import onnx
import pytest

import onnx_fhe
from onnx_fhe.analysis.regions.regions import JOINS, POOLS
from onnx_fhe.analysis.regions.server import server_nodes
from onnx_fhe.backends.reference import ReferenceBackend
from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.errors import UserError
from onnx_fhe.ir.graph import LAYOUT
from onnx_fhe.passes import Context, PassManager

KEPT = frozenset({"Gemm", "MatMul", "Conv"}) | POOLS | LAYOUT
INTEGER = "quantize,lower-to-integer,fuse-tlu"


def normalized(proto, folder):
    onnx.save(proto, folder / "model.onnx")
    return PassManager.parse("normalize").run(onnx_fhe.load(folder / "model.onnx")).model


@pytest.fixture(scope="module")
def stages(zoo, tmp_path_factory):
    """``stages(name)``: a network of the zoo, normalized and on the integer level; no test changes them."""

    @functools.cache
    def made(name):
        proto = zoo.NETWORKS[name]()
        model = normalized(proto, tmp_path_factory.mktemp("network"))
        return model, PassManager.parse(INTEGER).run(model, Context(calibration=zoo.samples(proto))).model

    return made


def test_linear_pooling_and_layout_nodes_keep_their_names(small, stages):
    model, lowered = stages(small.name)
    wanted = [n.name for n in server_nodes(model) if n.op_type in KEPT]
    found = [n.name for n in lowered.graph]
    assert wanted
    assert [n for n in found if n in wanted] == wanted
    assert not [n for n in found if n.endswith("_replaced")]


def test_layers_are_named_as_in_the_model(small, stages):
    model, lowered = stages(small.name)
    names = {n.name: n.op_type for n in model.graph}
    layers = ReferenceBackend().lower(lowered).statistics().layers
    assert layers
    # A table on a bare input is a layer of its own: no node of the model computes what it reads.
    assert [x.name for x in layers if x.name not in names and x.operator != "TableLookup"] == []


def test_joins_keep_their_names(zoo, stages):
    networks = [name for name in zoo.NETWORKS if "residual" in name]
    assert networks
    for name in networks:
        model, lowered = stages(name)
        joins = [
            n.name
            for n in server_nodes(model)
            if n.op_type in JOINS and all(v.const_value is None for v in n.inputs)
        ]
        assert joins
        assert set(joins) <= {n.name for n in lowered.graph}


def test_inspect_compile_and_options_agree_on_names(digits_cnn):
    inspected = [x.layer for x in inspect_model(digits_cnn.model).lookups]
    program = onnx_fhe.compile(
        digits_cnn.model,
        digits_cnn.calibration,
        f'{INTEGER},insert-rounding{{bits=5 layers={{"/2/Conv"=3}}}}',
        backend="reference",
    )
    layers = {x.name: x for x in program.statistics.layers}
    assert [n for n, x in layers.items() if x.programmable_bootstraps] == inspected
    assert layers["/2/Conv"].table_bits == 3
    assert layers["/4/Conv"].table_bits == 5
    assert layers["/7/Gemm"].programmable_bootstraps == 0


def test_a_layer_that_is_not_there_is_refused(digits_mlp):
    pipeline = f'{INTEGER},insert-rounding{{bits=4 layers={{"/9/Gemm"=3}}}}'
    with pytest.raises(UserError) as refused:
        onnx_fhe.compile(digits_mlp.model, digits_mlp.calibration, pipeline, backend="reference")
    assert "/9/Gemm" in str(refused.value)
    assert "/0/Gemm" in str(refused.value)
