"""Small circuits in two halves, and clients with keys of their own: made once for the tests of a process."""

from __future__ import annotations

import pytest
from small_circuits import Circuit, small_circuit

import onnx_fhe


@pytest.fixture(scope="session")
def circuit(tmp_path_factory) -> Circuit:
    """A linear network: its keys are a few bytes, and it takes milliseconds."""
    return small_circuit(tmp_path_factory.mktemp("linear"), tables=False)


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Circuit:
    """A network with table lookups: its keys are real ones, of 11 MB, which take seconds to make."""
    return small_circuit(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def linear(circuit) -> onnx_fhe.Client:
    """A client of the linear network."""
    return circuit.new_client()


@pytest.fixture(scope="session")
def alice(table) -> onnx_fhe.Client:
    return table.new_client()


@pytest.fixture(scope="session")
def bob(table) -> onnx_fhe.Client:
    return table.new_client()


@pytest.fixture(scope="session")
def alices_keys(alice, tmp_path_factory):
    """The folder of alice's secret keys."""
    folder = tmp_path_factory.mktemp("keys") / "alice"
    alice.save_keys(folder)
    return folder
