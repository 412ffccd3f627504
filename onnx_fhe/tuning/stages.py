"""Models half way through a pipeline, kept for trials that begin the same: trained students above all."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

MAX_KEPT_MODELS = 24
"""Models that are kept in memory."""
MIN_KEPT_SECONDS = 0.02
"""A model that is made faster is not kept."""
MIN_SHARED_SECONDS = 1.0
"""A model that takes longer is left for other processes, too."""


@dataclass(frozen=True)
class Stage:
    """A model on its way.

    Attributes:
        model: The model.
        quantized_from: The float model that it was quantized from.
        notes: What its last pass told the user.
    """

    model: ir.Model
    quantized_from: ir.Model | None
    notes: tuple[str, ...] = ()


class Stages:
    """Stages by what made them: texts of passes, with what these depend on besides.

    Args:
        folder: Where other processes find those that took long to make; None for memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: OrderedDict[tuple[str, ...], Stage] = OrderedDict()

    def longest(self, texts: tuple[str, ...]) -> tuple[int, Stage | None]:
        """What is known of the longest beginning of ``texts``: its length, and the stage."""
        for count in range(len(texts), 0, -1):
            found = self._kept.get(texts[:count]) or self._read(texts[:count])
            if found is not None:
                self._remember(texts[:count], found)
                return count, found
        return 0, None

    def keep(self, texts: tuple[str, ...], stage: Stage, seconds: float) -> None:
        """Remember a stage whose last pass took so long."""
        if seconds >= MIN_KEPT_SECONDS:
            self._remember(texts, stage)
        if seconds >= MIN_SHARED_SECONDS and self._folder is not None:
            self._write(self._file(self._folder, texts), stage)

    def written(self, texts: tuple[str, ...]) -> Stage | None:
        """What a process left of exactly these passes."""
        return self._read(texts)

    def _remember(self, texts: tuple[str, ...], stage: Stage) -> None:
        self._kept[texts] = stage
        self._kept.move_to_end(texts)
        while len(self._kept) > MAX_KEPT_MODELS:
            self._kept.popitem(last=False)

    def _file(self, folder: Path, texts: tuple[str, ...]) -> Path:
        return folder / f"{hashlib.sha256(repr(texts).encode()).hexdigest()}.stage"

    def _read(self, texts: tuple[str, ...]) -> Stage | None:
        if self._folder is None:
            return None
        try:
            content = self._file(self._folder, texts).read_bytes()
        except OSError:
            return None
        # Written by a process of this search, into a folder that only its user may read.
        model, quantized_from, notes = pickle.loads(content)
        return Stage(_model(model), None if quantized_from is None else _model(quantized_from), notes)

    def _write(self, path: Path, stage: Stage) -> None:
        # A model over 2 GB, or a full disk: then it is made again.
        with suppress(ValueError, OSError):
            before = stage.quantized_from
            parts = (_bytes(stage.model), None if before is None else _bytes(before), stage.notes)
            content = pickle.dumps(parts)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_bytes(content)
            part.replace(path)


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _model(content: bytes) -> ir.Model:
    model: ir.Model = ir.from_proto(onnx.ModelProto.FromString(content))
    return model
