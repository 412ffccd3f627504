"""The three levels of a model, kept in its metadata and recognizable without."""

from __future__ import annotations

from enum import Enum

import onnx_ir as ir

from . import dialect

LEVEL_KEY = "onnx_fhe.level"
"""Metadata entry; ``ir.state`` has the others."""
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


class Level(str, Enum):
    """What a model holds: see docs/design/architecture.md."""

    FLOAT = "float"
    QDQ = "qdq"
    INTEGER = "integer"

    def __str__(self) -> str:
        return self.value


def level_of(model: ir.Model) -> Level:
    """The level that the metadata names, else the one that the operators show."""
    if (named := model.metadata_props.get(LEVEL_KEY)) in {level.value for level in Level}:
        return Level(named)
    if any(node.domain == dialect.DOMAIN for node in model.graph):
        return Level.INTEGER
    if any(node.op_type in QUANTIZERS and node.domain == "" for node in model.graph):
        return Level.QDQ
    return Level.FLOAT


def set_level(model: ir.Model, level: Level) -> None:
    """Record the level in the model's metadata."""
    model.metadata_props[LEVEL_KEY] = level.value
