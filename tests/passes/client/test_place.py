"""The first and last layers are the client's where their owner chose so, and the outputs stay the same."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.analysis.regions.server import server_nodes
from onnx_fhe.ir.errors import PipelineError
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.client.place import Place
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.testing import zoo
from onnx_fhe.testing.pipelines import apply, imported

REST = "quantize{weights=6 activations=8},lower-to-integer,fuse-tlu"


def placed(network: str = "mlp", **names: tuple[str, ...]) -> tuple:
    """A normalized network with the pass run on it, its layers by name, and its notes."""
    model = apply(imported(zoo.NETWORKS[network]()), "normalize")
    context = Context()
    Place(**names, context=context)(model)
    return model, [str(n.name) for n in server_nodes(model)], context.notes


def layers(network: str = "mlp") -> list[str]:
    """Names of the linear layers."""
    model = apply(imported(zoo.NETWORKS[network]()), "normalize")
    return [str(n.name) for n in model.graph if n.op_type in ("Gemm", "Conv")]


def test_the_first_layers_are_the_clients():
    first, second, third = layers()
    model, server, notes = placed(client_until=(first,))
    assert server[0] == second
    assert server[-1] == third
    assert "before it encrypts" in notes[0]
    assert "can read the weights" in notes[0]
    marked = [n.name for n in model.graph if "onnx_fhe.placement" in n.metadata_props]
    assert marked == [first]


def test_the_last_layers_are_the_clients():
    first, second, third = layers()
    _, server, notes = placed(client_from=(third,))
    assert server[0] == first
    assert server[-1] == second
    assert "decrypts the values" in notes[0]


@pytest.mark.parametrize("network", ["mlp", "cnn", "residual_cnn", "residual_add"])
@pytest.mark.parametrize("kind", ["client_until", "client_from"])
def test_outputs_stay_close_and_the_weights_are_where_they_were_put(network: str, kind: str):
    proto = zoo.NETWORKS[network]()
    names = layers(network)
    chosen = names[0] if kind == "client_until" else names[-1]
    model, data = imported(proto), zoo.samples(proto, 200)
    option = kind.replace("_", "-")
    text = f"normalize,place{{{option}=[{chosen}]}},{REST}"
    integer = PassManager.parse(text).run(model, Context(calibration=data)).model
    parts = partition(integer)
    own = parts.prologue if kind == "client_until" else parts.epilogue
    assert chosen in {str(n.name) for n in own.graph}
    assert chosen not in {str(n.name) for n in parts.server.graph}
    for name, wanted in run(model, data).items():
        assert np.abs(run(integer, data)[name] - wanted).mean() < 0.1 * wanted.std()


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(PipelineError, match="does not have") as caught:
        placed(client_until=("nothing",))
    assert "inspect" in caught.value.do
    assert layers()[0] in caught.value.allowed


def test_a_client_that_would_compute_everything_is_refused():
    with pytest.raises(PipelineError, match="whole network"):
        placed(client_until=(layers()[-1],))
