"""What accuracy means: shares of right classes, R^2, mean errors, or a function of the user's."""

from __future__ import annotations

import importlib
import math
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..fidelity.samples import label_warnings
from ..ir.batch_runner import Arrays
from ..ir.errors import DataError, UserError
from ..ir.suggest import nearest
from ..scoring import predictions

NAMES = ("accuracy", "agreement", "r2", "mean-error")
"""Metrics that have a name."""


@dataclass(frozen=True)
class Answers:
    """What is scored.

    Attributes:
        outputs: By name, samples on axis 0.
        labels: (samples), where known.
        expected: Outputs of the float model on the same samples.
        model: A model with these graph outputs.
    """

    outputs: Arrays
    labels: np.ndarray | None
    expected: Arrays
    model: ir.Model

    def floats(self) -> Answers:
        """The same samples with the outputs of the float model."""
        return replace(self, outputs=self.expected)


@dataclass(frozen=True)
class Metric:
    """How outputs are scored.

    Attributes:
        name: As given with ``--metric``.
        higher_is_better: Direction.
        bounded: Whether values lie between 0 and 1.
        score: A number for all samples.
        each: The same for each sample, (samples), where the score is their mean.
    """

    name: str
    higher_is_better: bool
    bounded: bool
    score: Callable[[Answers], float]
    each: Callable[[Answers], np.ndarray] | None = None


def resolve(name: str, given: Answers) -> Metric:
    """The metric of that name.

    Args:
        name: ``auto``, one of ``NAMES``, or ``module:function`` (or ``FILE.py:function``): a function of
            (outputs by name, labels) that returns a number, the higher the better.
        given: The outputs of the float model.

    Raises:
        UserError: There is no such metric or function, or it fails on the outputs of the float model.
        DataError: It needs labels of another kind.
    """
    if name == "auto":
        name = _choose(given)
    if ":" in name:
        metric = Metric(name, True, False, _Users(name, load_function(name)))
        metric.score(given)
        return metric
    labels, is_classifier = given.labels, predictions(given.expected, given.model) is not None
    if name not in NAMES:
        raise UserError(
            f"there is no metric {name!r}",
            allowed=f"{', '.join(NAMES)}, or module:function",
            do=nearest(name, list(NAMES)),
        )
    if name in ("accuracy", "agreement") and not is_classifier:
        raise UserError(
            f"the metric {name} does not fit this model: it is no classifier",
            allowed="r2, mean-error, or module:function",
        )
    if name == "accuracy" and (labels is None or labels.dtype.kind not in "iub"):
        raise DataError(
            "the metric accuracy needs classes",
            found="no labels" if labels is None else f"labels of dtype {labels.dtype}",
            allowed="integers in the array 'labels' of --data",
            do="add them, or use --metric agreement (with the float model's predictions)",
        )
    if name == "accuracy" and (told := label_warnings(given.model, labels)):
        raise DataError(
            "the metric accuracy needs the classes of the network",
            found=told[0],
            allowed="classes counted from 0 in the array 'labels' of --data",
            do="write them so, or use --metric agreement (with the float model's predictions)",
        )
    if name in ("r2", "mean-error") and labels is not None:
        _column(given.expected, labels)
    return {"accuracy": ACCURACY, "agreement": AGREEMENT, "r2": R2, "mean-error": MEAN_ERROR}[name]


def _choose(given: Answers) -> str:
    if predictions(given.expected, given.model) is None:
        return "r2"
    if given.labels is None:
        return "agreement"
    return "accuracy" if given.labels.dtype.kind in "iub" else "r2"


def _right(given: Answers) -> np.ndarray:
    found = predictions(given.outputs, given.model)
    assert found is not None
    assert given.labels is not None
    return np.asarray(found == given.labels, dtype=np.float64)


def _same(given: Answers) -> np.ndarray:
    return _right(replace(given, labels=predictions(given.expected, given.model)))


def _column(outputs: Arrays, labels: np.ndarray) -> np.ndarray:
    """The one number for each sample that labels can be compared with: (samples)."""
    flat = [a.reshape(len(a), -1) for a in outputs.values() if a.ndim and len(a) == len(labels)]
    columns = [a for a in flat if a.shape[1] == 1]
    if not columns:
        raise DataError(
            "the labels do not fit the outputs",
            found=f"one number a sample, and outputs of {', '.join(str(a.shape[1]) for a in flat)} numbers",
            allowed="a model with one output number for each sample",
            do="give --metric module:function, or leave the labels out to compare with the float model",
        )
    return np.asarray(columns[0][:, 0], dtype=np.float64)


def _pair(given: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Found and wanted numbers: (samples, numbers); without labels those of the float model are wanted."""
    if given.labels is not None:
        return _column(given.outputs, given.labels)[:, None], given.labels.astype(np.float64)[:, None]
    names = [n for n, a in given.expected.items() if a.dtype.kind == "f"]
    count = len(next(iter(given.expected.values())))

    def joined(arrays: Arrays) -> np.ndarray:
        parts = [arrays[n].reshape(count, -1) for n in names]
        return np.asarray(np.concatenate(parts, axis=1), dtype=np.float64)

    return joined(given.outputs), joined(given.expected)


def _r2(given: Answers) -> float:
    """Coefficient of determination, the mean over output numbers weighted by their variance."""
    found, wanted = _pair(given)
    spread = float(((wanted - wanted.mean(axis=0)) ** 2).sum())
    return 1.0 - float(((found - wanted) ** 2).sum()) / max(spread, 1e-12)


def _errors(given: Answers) -> np.ndarray:
    found, wanted = _pair(given)
    return np.asarray(np.abs(found - wanted).mean(axis=1))


@dataclass(frozen=True)
class _Mean:
    """The mean over the samples; a class, for a metric travels to other processes."""

    each: Callable[[Answers], np.ndarray]

    def __call__(self, given: Answers) -> float:
        return float(self.each(given).mean())


ACCURACY = Metric("accuracy", True, True, _Mean(_right), _right)
AGREEMENT = Metric("agreement", True, True, _Mean(_same), _same)
R2 = Metric("r2", True, False, _r2)
MEAN_ERROR = Metric("mean-error", False, False, _Mean(_errors), _errors)


@dataclass(frozen=True)
class _Users:
    """A user's function, with errors that name it."""

    name: str
    function: Callable[[Arrays, np.ndarray | None], float]

    def __call__(self, given: Answers) -> float:
        try:
            found = float(self.function(dict(given.outputs), given.labels))
        except Exception as error:
            raise UserError(
                f"the metric {self.name} fails",
                found=f"{type(error).__name__}: {error}",
                allowed="a function of (outputs by name, labels) that returns a number",
            ) from error
        if not math.isfinite(found):
            raise UserError(
                f"the metric {self.name} returns no number",
                found=str(found),
                allowed="a finite number, the higher the better",
            )
        return found


def load_function(spec: str) -> Callable[[Arrays, np.ndarray | None], float]:
    """The function of ``module:function`` or ``FILE.py:function``; modules beside the user are found too.

    Raises:
        UserError: It cannot be imported, or is no function.
    """
    place, _, name = spec.rpartition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        raise UserError(
            f"the metric {spec!r} cannot be imported",
            found=f"{type(error).__name__}: {error}",
            allowed="module:function or FILE.py:function",
        ) from error
    finally:
        sys.path.remove(folder)
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(
            f"there is no function {name!r} in {place}",
            allowed=", ".join(names) or "a function of (outputs by name, labels)",
            do=nearest(name, names),
        )
    return found  # type: ignore[no-any-return]


def _from_file(path: Path) -> object:
    name = f"onnx_fhe_metric_{path.stem}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(str(path))
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def standard_error(mine: np.ndarray, floats: np.ndarray) -> float:
    """Standard error of the mean difference of two scores of the same samples."""
    return float(np.std(mine - floats) / math.sqrt(len(mine)))


def packed(metric: Metric) -> bytes:
    """A metric that unpickles where the user's module is not.

    Raises:
        UserError: It is no plain function.
    """
    function = getattr(metric.score, "function", None)
    if function is None:
        return pickle.dumps(metric)
    import cloudpickle

    module = sys.modules.get(function.__module__)
    try:
        if module is not None and module.__name__ != "__main__":
            cloudpickle.register_pickle_by_value(module)
        return bytes(cloudpickle.dumps(metric))
    except Exception as error:
        raise UserError(
            f"the metric {metric.name} cannot be sent to other processes",
            found=f"{type(error).__name__}: {error}",
            allowed="a plain function",
        ) from error
    finally:
        if module is not None and module.__name__ in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(module)
