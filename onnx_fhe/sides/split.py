"""Splitting a program in the half that its clients get and the half that computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ..archive import hashes
from ..artifact_parts import files_of
from ..backends.sides import Sides
from ..backends.sides_registry import sides_of
from ..ir.runtime import prepared
from ..ports import Port
from ..prologue import standalone
from ..splittable import Splittable
from .bundle import Bundle, side_of
from .client import EPILOGUE, PROLOGUE, RANGES
from .headers import CircuitEntry, ClientHeader, HalfHeader, ServerHeader
from .ranges import write_ranges


def split(program: Splittable) -> tuple[Bundle[ClientHeader], Bundle[ServerHeader]]:
    """The two halves of a program.

    The client's half holds what is computed before encryption and after decryption, and the parameters of
    the keys; the server's half the circuit. A circuit from a file is first held against its integer model.

    Args:
        program: What was compiled, or loaded.

    Raises:
        UnsupportedError: The backend has no two sides.
        ArtifactError: The circuit is not that of its integer model.
    """
    manifest = program.manifest
    sides = sides_of(manifest.backend)
    circuits = {batch: files_of(circuit.current()) for batch, circuit in program.circuits.items()}
    common = HalfHeader(
        name=Path(manifest.source.file).stem or "model",
        backend=manifest.backend,
        circuits=tuple(_entry(sides, batch, files) for batch, files in sorted(circuits.items())),
        p_error=manifest.p_error,
        global_p_error=manifest.global_p_error,
        security_level=manifest.security_level,
        results=manifest.results,
        packages=manifest.packages,
    )
    prologue, ranges = standalone(program.parts)
    own = {
        PROLOGUE: _anonymous(prologue),
        EPILOGUE: _anonymous(prepared(program.parts.epilogue)),
        RANGES: write_ranges(ranges),
    }
    client: dict[str, bytes] = dict(own)
    server: dict[str, bytes] = {}
    for batch, files in circuits.items():
        for name, content in files.items():
            place = f"circuits/{batch}/{name}"
            server[place] = content
            if name.startswith("client/"):
                client[place] = content
    return (
        Bundle(
            ClientHeader(
                **_fields(common),
                inputs=tuple(map(_port, manifest.inputs)),
                outputs=tuple(map(_port, manifest.outputs)),
            ),
            client,
        ),
        Bundle(ServerHeader(**_fields(common)), server),
    )


def _port(port: Port) -> Port:
    dtype = ir.DataType[port.dtype.upper()].numpy() if port.dtype else np.dtype(np.float32)
    return Port(port.name, port.shape, dtype.name)


def _fields(header: HalfHeader) -> dict[str, Any]:
    return {k: v for k, v in vars(replace(header)).items() if k not in ("kind", "parts", "format")}


def _entry(sides: Sides, batch: int, files: Mapping[str, bytes]) -> CircuitEntry:
    placed = {f"circuits/{batch}/{name}": content for name, content in files.items()}
    side = side_of(placed, batch, sides.client)
    known = json.dumps(hashes(files), sort_keys=True).encode()
    return CircuitEntry(batch, hashlib.sha256(known).hexdigest(), side.parameters)


def _anonymous(model: onnx.ModelProto) -> bytes:
    """A model without anything that onnxruntime does not need: names of files, notes, annotations."""
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    for field in ("producer_name", "producer_version", "domain", "doc_string"):
        kept.ClearField(field)
    del kept.metadata_props[:]
    graph = kept.graph
    graph.name = "graph"
    graph.ClearField("doc_string")
    del graph.metadata_props[:]
    del graph.value_info[:]
    weights = sorted(graph.initializer, key=lambda w: str(w.name))  # their order is that of a set
    del graph.initializer[:]
    graph.initializer.extend(weights)
    for number, node in enumerate(graph.node):
        node.name = str(number)
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
        del value.metadata_props[:]
    return bytes(kept.SerializeToString(deterministic=True))
