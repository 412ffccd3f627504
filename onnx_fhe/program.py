"""A compiled network: run it in the clear, simulated or encrypted; save it and load it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from typing_extensions import Self

from . import artifact
from .artifact_parts import files_of, model_of
from .backends.base import Circuit, LowerOptions
from .backends.reference import ReferenceCircuit, count_overflows
from .backends.sides import Progress, quiet
from .backends.statistics import CircuitStatistics
from .batches import Circuits, placed
from .circuits import circuits_of, read
from .evaluating import EncryptedRuns
from .evaluations import Jobs
from .input_coercion import DataLike, as_data
from .ir.batch_runner import Arrays
from .ir.errors import UserError
from .ir.matching import calibration_for
from .ir.partition import Parts, partition
from .ir.runtime import Session
from .ir.save import serialize
from .manifest import Manifest
from .prologue import Prologue
from .running import MODES, Mode, Result, Stopwatch, simulate, warnings

if TYPE_CHECKING:
    from .machine import Profile
    from .tuning.frontier import Frontier


class Program:
    """What ``compile`` returns.

    Args:
        model: The integer-level model.
        manifest: What it says about itself.
        circuits: The circuits by the samples of a call; or what returns the one for one sample, called when
            that is first needed, as a backend may be slow to import.
        seconds: How long the stages of compiling took.
        files: The parts of the artifact that it was loaded from.

    Attributes:
        integer_model: The integer-level model; it runs in onnxruntime.
        circuits: The circuits by the number of samples that they take in one call, 1 among them.
        manifest: Pipeline, errors, ranges, costs and versions, as in the artifact.
        seconds: Seconds of each stage of compiling; empty for a loaded program.
    """

    def __init__(
        self,
        model: ir.Model,
        manifest: Manifest,
        circuits: Circuits | Callable[[], Circuit],
        *,
        seconds: Mapping[str, float] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.integer_model = model
        self.manifest = manifest
        self.seconds = dict(seconds or {})
        self.circuits = circuits if isinstance(circuits, Circuits) else Circuits({1: circuits})
        self._files = files
        self._runs = EncryptedRuns(self)

    @property
    def statistics(self) -> CircuitStatistics:
        """What one sample costs, per layer too."""
        return self.manifest.statistics

    @property
    def notes(self) -> tuple[str, ...]:
        """What passes want the user to know."""
        return self.manifest.notes

    @property
    def circuit(self) -> Circuit:
        """The backend's circuit for one sample a call."""
        return self.circuits[1]

    @cached_property
    def parts(self) -> Parts:
        """Prologue, server part and epilogue of the integer model."""
        return partition(self.integer_model)

    def run(
        self,
        data: DataLike,
        mode: Mode = "clear",
        limit: int | None = None,
        progress: Progress = quiet,
        jobs: Jobs = 1,
        batch: int = 1,
        dask: str | None = None,
    ) -> Result:
        """Compute the outputs of ``data``.

        Args:
            data: Arrays by input name, samples on axis 0; or a single array, an .npz file, what ``load_data``
                returned.
            mode: ``clear`` runs the integer model in onnxruntime; ``simulate`` the circuit with the errors
                that encryption would bring; ``encrypted`` makes keys (once for each program), encrypts,
                evaluates and decrypts.
            limit: Run the first so many samples only.
            progress: Called with (what, done, total).
            jobs: For ``encrypted``: samples that are evaluated at the same time, each on one core. With 1
                they come one after the other, each on all cores: the least latency. ``auto`` measures both on
                the first samples and goes on with what gives more throughput.
            batch: For ``encrypted``: samples in one call of the circuit, which is compiled again for so many
                unless ``circuits`` has it. What a call does to its keys is then done for all of them, and
                loops are longer.
            dask: For ``encrypted``: address of a Dask scheduler on whose workers the samples are evaluated,
                each on one core; ``circuits`` must have the batch. No secret key goes there.

        Raises:
            DataError: A name, shape, type or value does not fit the model.
            UserError: There is no such mode, or the limit, the number of jobs or the batch is below 1.
            UnsupportedError: The circuit takes one sample a call only.
            ArtifactError: The loaded circuit does not fit the installed backend.
        """
        if mode not in MODES:
            raise UserError("there is no such mode", found=str(mode), allowed=", ".join(MODES))
        if limit is not None and limit < 1:
            raise UserError("the limit leaves no samples", found=str(limit), allowed="1 or more")
        if (jobs != "auto" and jobs < 1) or batch < 1:
            asked = f"{jobs} jobs, {batch} samples a call"
            raise UserError("nobody would evaluate the samples", found=asked, allowed="1 or more of each")
        arrays = {k: v[:limit] for k, v in calibration_for(self.integer_model, as_data(data)).items()}
        samples = len(next(iter(arrays.values())))
        timed = Stopwatch()
        with timed("prologue"):
            values, clip = self._prologue.run(arrays)
        # Not for the mode `clear` only: what is out of range or wrong must be told from what is merely noise.
        with timed("clear") if mode == "clear" else Stopwatch()(""):
            expected = self._reference.clear(values)
        overflows = count_overflows(self.parts.server, values)
        found, evaluations = expected, None
        if mode == "simulate":
            found = self._simulate(values, timed, progress)
        elif mode == "encrypted":
            found, evaluations = self._runs.run(values, timed, progress, jobs, batch, dask)
        with timed("epilogue"):
            outputs = self._finish(found, arrays)
        return Result(
            mode=mode,
            samples=samples,
            outputs=outputs,
            expected=outputs if mode == "clear" else self._finish(expected, arrays),
            overflows=overflows,
            clip=clip,
            seconds=timed.seconds,
            warnings=warnings(overflows, clip),
            evaluations=evaluations,
        )

    def simulate(self, data: DataLike, limit: int | None = None, progress: Progress = quiet) -> Result:
        """``run`` with the errors that encryption would bring."""
        return self.run(data, "simulate", limit, progress)

    def encrypted(
        self,
        data: DataLike,
        limit: int | None = None,
        progress: Progress = quiet,
        jobs: Jobs = 1,
        batch: int = 1,
        dask: str | None = None,
    ) -> Result:
        """``run`` on ciphertexts."""
        return self.run(data, "encrypted", limit, progress, jobs, batch, dask)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact in one step; the same program gives the same bytes.

        Raises:
            OutputError: ``path`` cannot be written.
        """
        self.manifest = artifact.write(path, self.manifest, self._content())

    def _content(self) -> Mapping[str, bytes]:
        """The parts of the artifact."""
        if self._files is None:
            self._files = {
                artifact.INTEGER: serialize(self.integer_model),
                artifact.PROLOGUE: serialize(self.parts.prologue),
                artifact.EPILOGUE: serialize(self.parts.epilogue),
            }
            for samples, circuit in self.circuits.items():
                self._files |= placed(files_of(circuit), samples)
        return self._files

    def __getstate__(self) -> dict[str, Any]:
        """What pickling keeps: the content of the artifact. Keys of a session stay in this process."""
        return {"manifest": self.manifest, "seconds": self.seconds, "files": dict(self._content())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The program that the content of an artifact makes."""
        manifest, files = state["manifest"], state["files"]
        model = model_of(files[artifact.INTEGER])
        Program.__init__(
            self, model, manifest, circuits_of(manifest, files, model), seconds=state["seconds"], files=files
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A program with a model of its own and without keys; the circuit is the same."""
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        Program.__init__(
            copy,
            self.integer_model.clone(),
            self.manifest,
            self.circuits,
            seconds=self.seconds,
            files=self._files,
        )
        return copy

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        data: DataLike | None = None,
        model: str | os.PathLike[str] | None = None,
        frontier: Frontier | None = None,
        profile: Profile | None = None,
    ) -> None:
        """Write a page about the circuit for people to look at: one HTML file that loads nothing.

        Args:
            path: Where it goes.
            data: Measure on this data instead of what was recorded about the calibration data; with labels
                there are accuracies.
            model: The ONNX file that was compiled; with it ``data`` is compared with the float network.
            frontier: What a search found.
            profile: Profile of the machine that times are for; by default this one.

        Raises:
            DataError: The data does not fit the model.
            UserError: ``model`` is another file than the one that was compiled.
            OutputError: ``path`` cannot be written.
        """
        from .report.writing import write

        write(self.integer_model, self.manifest, path, data, model, frontier, profile)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an artifact. The backend is imported when the circuit is first needed, not here.

        Raises:
            ArtifactError: There is no such file, or it is no artifact, damaged, or of a newer format.
        """
        manifest, files, model = read(path)
        return cls(model, manifest, circuits_of(manifest, files, model, str(path)), files=files)

    @cached_property
    def _prologue(self) -> Prologue:
        return Prologue(self.parts)

    @cached_property
    def _reference(self) -> ReferenceCircuit:
        return ReferenceCircuit(self.integer_model, LowerOptions())

    @cached_property
    def _epilogue(self) -> Session:
        return Session(self.parts.epilogue)

    def _simulate(self, values: Arrays, timed: Stopwatch, progress: Progress) -> Arrays:
        # What is imported and compiled first counts once, not for each sample.
        with timed("prepare"):
            circuit = self.circuit
        with timed("simulate"):
            return simulate(circuit, values, progress)

    def _finish(self, decrypted: Arrays, data: Arrays) -> Arrays:
        """Run the epilogue on what was decrypted; inputs that bypass the circuit are read from ``data``."""
        given: dict[str, np.ndarray] = {**data, **{k: v.astype(np.float32) for k, v in decrypted.items()}}
        return self._epilogue.run_batched({k: given[k] for k in self._epilogue.inputs})
