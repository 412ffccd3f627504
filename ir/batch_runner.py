"""Running a session of onnxruntime on any number of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from . import samples
from .errors import ModelError

if TYPE_CHECKING:
    # A server imports this module for what it names, and has no onnxruntime.
    import onnxruntime

Arrays = dict[str, np.ndarray]
_MIN_BOUND_INPUTS = 512
"""Inputs of a session past which they are bound one by one."""


class BatchRunner:
    """A session ready to run on batches.

    Args:
        session: The session.

    Attributes:
        inputs: What onnxruntime says of each input, by name.
        outputs: Names of the outputs.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self.inputs = {i.name: i for i in session.get_inputs()}
        self.outputs = [o.name for o in session.get_outputs()]

    def run(self, data: Mapping[str, np.ndarray]) -> Arrays:
        """Run one batch: arrays by input name in, arrays by output name out."""
        try:
            if len(self.inputs) > _MIN_BOUND_INPUTS:
                results = self._run_bound(data)
            else:
                results = self._session.run(self.outputs, {k: data[k] for k in self.inputs})
        except Exception as error:
            raise ModelError("onnxruntime cannot run this model", found=str(error).strip()) from error
        return dict(zip(self.outputs, map(_array, results), strict=True))

    def _run_bound(self, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        # The plain run looks for each input in a list of all: quadratic in their number.
        binding = self._session.io_binding()
        for name in self.inputs:
            binding.bind_cpu_input(name, np.ascontiguousarray(data[name]))
        for name in self.outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def batch_size(self) -> int | None:
        """The static size of axis 0 of the inputs, or None when it is free."""
        sizes = {i.shape[0] for i in self.inputs.values() if i.shape}
        static = {s for s in sizes if isinstance(s, int)}
        return next(iter(static)) if len(static) == 1 else None

    def run_batched(
        self,
        data: Mapping[str, np.ndarray],
        batch: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> Arrays:
        """Run any number of samples, in batches of ``batch`` or of the model's static batch size.

        A static batch size that does not divide the number of samples is filled up by repeating the last
        one. With a static size of one, a result that has no axis for it comes back with one in front. What
        does not depend on the samples is returned once.

        Raises:
            UnsupportedError: The samples of an output cannot be told apart.
        """
        total = len(next(iter(data.values())))
        if any(len(data[k]) != total for k in self.inputs):
            return self.run(data)  # axis 0 is no batch
        static = self.batch_size()
        if static:
            return self._run_filled(data, total, static, progress)
        chosen, runs = samples.parts(total, batch), []
        for part in chosen:
            try:
                runs.append(self.run({k: data[k][part] for k in self.inputs}))
            except ModelError:
                if runs or total == 1:
                    raise
                # Some leave the batch free in their inputs, and write one sample into a Reshape.
                return self._run_filled(data, total, 1, progress)
            if progress:
                progress(part.stop, total)
        if len(runs) == 1:
            return runs[0]
        sizes = [p.stop - p.start for p in chosen]
        axes = {k: samples.following([r[k].shape for r in runs], sizes, k) for k in self.outputs}
        return {k: samples.joined([r[k] for r in runs], axis, k) for k, axis in axes.items()}

    def _run_filled(
        self,
        data: Mapping[str, np.ndarray],
        total: int,
        size: int,
        progress: Callable[[int, int], None] | None,
    ) -> Arrays:
        """Batches of the one size that the model takes."""
        runs: list[Arrays] = []
        for start in range(0, total, size):
            chosen = np.minimum(np.arange(start, start + size), total - 1)
            runs.append(self.run({k: data[k][chosen] for k in self.inputs}))
            if progress:
                progress(min(start + size, total), total)
        if size == 1:
            return {k: samples.stacked([r[k] for r in runs]) for k in self.outputs}
        return {k: np.concatenate([r[k] for r in runs])[:total] for k in self.outputs}


def _array(result: object) -> np.ndarray:
    array = np.asarray(result)
    # Strings (names of classes) come as Python objects, which cannot be written to a file.
    return array.astype(str) if array.dtype == object else array
