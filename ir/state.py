"""What is known of a model beside its graph: entries of its metadata, typed, and written in one place.

The entries are part of the file format: models and artifacts that were saved hold them under these names.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from .level import LEVEL_KEY, Level

FILE_KEY = "onnx_fhe.file"
SHA256_KEY = "onnx_fhe.sha256"
NORMALIZED_KEY = "onnx_fhe.normalized"
TRAINED_KEY = "onnx_fhe.trained_quantized"
BATCH_KEY = "onnx_fhe.batch"
GLOBAL_P_ERROR_KEY = "onnx_fhe.global_p_error"


@dataclass(frozen=True)
class ModelState:
    """What the metadata of a model says.

    ``replace(ModelState.of(model), normalized=True).record(model)`` changes one entry.

    Attributes:
        level: What the model holds; None where that is not recorded (``level_of`` looks at its operators).
        file: Base name of the file that it came from; empty where that is not known.
        sha256: Of that file's content, hexadecimal.
        normalized: Whether it is in the canonical form.
        trained: Whether its integers were trained: then it is worth more bits to keep what it computes.
        fixed_batch: Whether its batch is fixed, because its samples depend on each other.
        global_p_error: Tolerated error of the whole circuit; None where the model asks for none.
    """

    level: Level | None = None
    file: str = ""
    sha256: str | None = None
    normalized: bool = False
    trained: bool = False
    fixed_batch: bool = False
    global_p_error: float | None = None

    @classmethod
    def of(cls, model: ir.Model) -> ModelState:
        """Read the entries of ``model``; one that makes no sense counts as none."""
        known = model.metadata_props
        level = known.get(LEVEL_KEY)
        return cls(
            level=Level(level) if level in {str(one) for one in Level} else None,
            file=known.get(FILE_KEY, ""),
            sha256=known.get(SHA256_KEY),
            normalized=known.get(NORMALIZED_KEY) == "true",
            trained=known.get(TRAINED_KEY) == "true",
            fixed_batch=bool(known.get(BATCH_KEY)),
            global_p_error=_probability(known.get(GLOBAL_P_ERROR_KEY)),
        )

    def record(self, model: ir.Model) -> None:
        """Write the entries into ``model`` that differ from those it has."""
        had, has = ModelState.of(model)._entries(), self._entries()
        for key, text in has.items():
            if text == had[key]:
                continue
            if text is None:
                model.metadata_props.pop(key, None)
            else:
                model.metadata_props[key] = text

    def _entries(self) -> dict[str, str | None]:
        """Each entry as it is written; None where it is left out."""
        return {
            LEVEL_KEY: None if self.level is None else str(self.level),
            FILE_KEY: self.file or None,
            SHA256_KEY: self.sha256,
            NORMALIZED_KEY: "true" if self.normalized else None,
            TRAINED_KEY: "true" if self.trained else None,
            BATCH_KEY: "fixed" if self.fixed_batch else None,
            GLOBAL_P_ERROR_KEY: None if self.global_p_error is None else repr(float(self.global_p_error)),
        }


def _probability(text: str | None) -> float | None:
    try:
        found = float(text) if text is not None else None
    except ValueError:
        return None
    return found if found is not None and 0 < found < 1 else None
