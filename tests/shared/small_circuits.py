"""Small circuits in two halves, and clients of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import onnx_fhe
from onnx_fhe.testing import zoo
from onnx_fhe.testing.builder import Builder

PIPELINE = "quantize{weights=2 activations=2 inputs=1},lower-to-integer,fuse-tlu"
"""Two bits everywhere: smaller keys there are none."""


@dataclass
class Circuit:
    """A circuit, its halves, and samples for it; the network of floats lies beside them."""

    program: onnx_fhe.Program
    client: Path
    server: Path
    data: dict[str, np.ndarray]

    def some(self, count: int) -> dict[str, np.ndarray]:
        """The first so many samples."""
        return {k: v[:count] for k, v in self.data.items()}

    def expected(self, count: int) -> np.ndarray:
        """What the network makes of them."""
        return self.program.run(self.some(count)).outputs["y"]

    def new_client(self) -> onnx_fhe.Client:
        """A client with keys of its own."""
        made = onnx_fhe.Client.load(self.client)
        made.keygen()
        return made


def small_network(tables: bool = True) -> onnx.ModelProto:
    """A dense layer of six inputs; with tables another one after it, and two lookups between them."""
    b = Builder(17, seed=3)
    last = b.dense(b.node("Relu", b.dense("input", 6, 2)), 2, 3) if tables else b.dense("input", 6, 3)
    made = b.model(last, [6], [3])
    made.graph.node[-1].output[0] = made.graph.output[0].name = "y"
    return made


def small_circuit(folder: Path, tables: bool = True) -> Circuit:
    """The circuit of ``small_network``, written to a folder.

    Its tables are exact: encrypted outputs are those of the integer model.
    """
    network = small_network(tables)
    onnx.save(network, folder / "net.onnx")
    samples = zoo.samples(network)
    program = onnx_fhe.compile(
        folder / "net.onnx", samples, PIPELINE, p_error=1e-9, check_samples=0, accept_loss=True
    )
    for half, name in zip(onnx_fhe.split(program), ("net.client", "net.server"), strict=True):
        half.save(folder / name)
    return Circuit(program, folder / "net.client", folder / "net.server", samples)
