"""The client: it quantizes, encrypts and decrypts, and holds nothing of the encrypted part of the network."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from ..backends.sides import ClientSide, Progress, quiet
from ..backends.sides_registry import sides_of
from ..clipping import ClipReport, QuantizingRunner
from ..input_coercion import DataLike, as_data
from ..ir import sessions
from ..ir.batch_runner import Arrays, BatchRunner
from ..ir.errors import ArtifactError, DataError, UserError
from ..ir.matching import Input, arrays_for
from ..ir.results import is_plausible
from . import keys as keeping
from .bundle import Bundle, load, side_of
from .ciphertexts import Ciphertexts, EncryptedResults
from .headers import CiphertextsHeader, CircuitEntry, ClientHeader
from .ranges import read_ranges

PROLOGUE, EPILOGUE, RANGES = "prologue.onnx", "epilogue.onnx", "ranges.json"


class Client:
    """The client's half of a circuit.

    Args:
        bundle: Its content.

    Attributes:
        header: What it says of itself: inputs and outputs of the network, the circuits, tolerated errors.
        clip: Input values that the last ``encrypt`` clipped to the calibrated range.
    """

    def __init__(self, bundle: Bundle[ClientHeader]) -> None:
        self._bundle = bundle
        self.header = bundle.header
        self.clip = ClipReport()
        self._sides: dict[int, ClientSide] = {}
        self._keys: dict[str, keeping.SecretKeys] = {}
        self._used: dict[int, str] = {}

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes) -> Client:
        """Read ``model.client``; nothing that is in it is executed.

        Args:
            source: Its path, or its content.

        Raises:
            ArtifactError: There is no such file, or it is another one, damaged, or of a newer format.
        """
        bundle = load(source, ClientHeader, {PROLOGUE, EPILOGUE, RANGES})
        header = bundle.header
        if not is_plausible(header.results, header.p_error):
            raise ArtifactError(
                "this client half says that results may be shared, with errors that can be met",
                file="" if isinstance(source, bytes) else str(source),
                found=f"p_error {header.p_error}",
                allowed="up to 2^-64",
                do="ask whoever compiled the network for an honest one",
            )
        return cls(bundle)

    def keygen(self, batch: int = 1) -> keeping.EvaluationKeys:
        """Make fresh keys, and return those that a server needs.

        Args:
            batch: Samples of one call; circuits for other numbers may take the same keys.

        Raises:
            ArtifactError: There is no circuit for so many samples.
        """
        side, entry = self._side(batch), self.header.circuit(batch)
        side.keygen()
        pair = keeping.new_pair()
        made = keeping.EvaluationKeys.of(entry.parameters, side.evaluation_keys(), pair)
        self._keys[entry.parameters] = keeping.SecretKeys(made.id, pair, side.secret_keys())
        self._use_keys(side, entry)
        return made

    def save_keys(self, folder: str | os.PathLike[str]) -> None:
        """Write the secret keys into a folder that its owner alone may enter.

        Raises:
            UserError: There are none.
            OutputError: They cannot be written, or others may enter the folder.
        """
        if not self._keys:
            raise UserError("there are no keys yet", do="make them first: keygen()")
        for parameters, keys in self._keys.items():
            keeping.save_secret(folder, parameters, keys)

    def load_keys(self, folder: str | os.PathLike[str], batch: int = 1) -> None:
        """Read the secret keys that ``save_keys`` wrote.

        Raises:
            ArtifactError: There are none for this circuit, or they are damaged.
        """
        entry = self.header.circuit(batch)
        self._keys[entry.parameters] = keeping.load_secret(folder, entry.parameters)
        self._use_keys(self._side(batch), entry)

    def evaluation_keys(self, batch: int = 1) -> keeping.EvaluationKeys:
        """The keys that a server needs.

        Raises:
            UserError: There are no keys.
        """
        side, entry = self._ready(batch)
        pair = self._keys[entry.parameters].pair
        return keeping.EvaluationKeys.of(entry.parameters, side.evaluation_keys(), pair)

    def encrypt(self, data: DataLike, batch: int = 1, progress: Progress = quiet) -> Ciphertexts:
        """Quantize and encrypt samples.

        Args:
            data: Arrays by input name, samples on axis 0; or a single array, an .npz file.
            batch: Samples of one call of the circuit.
            progress: Called with (what, done, total).

        Raises:
            DataError: A name, shape, type or value does not fit the network.
            UserError: There are no keys.
        """
        self._ready(batch)
        return self.encrypt_quantized(self.quantize(data), batch, progress)

    def quantize(self, data: DataLike) -> Arrays:
        """The integers that are encrypted, as ``encrypt_quantized`` takes them; needs no keys.

        Args:
            data: As for ``encrypt``.

        Raises:
            DataError: A name, shape, type or value does not fit the network.
        """
        values, self.clip = self._prologue.run(arrays_for(self.inputs, as_data(data)))
        return values

    def encrypt_quantized(
        self, values: Mapping[str, np.ndarray], batch: int = 1, progress: Progress = quiet
    ) -> Ciphertexts:
        """Encrypt what ``quantize`` returned.

        Args:
            values: Integers by name, samples on axis 0.
            batch: Samples of one call of the circuit.
            progress: Called with (what, done, total).

        Raises:
            DataError: A name, shape or value that the circuit was not made for.
            UserError: There are no keys.
        """
        side, entry = self._ready(batch)
        samples = len(next(iter(values.values())))
        calls = []
        for first in range(0, samples, batch):
            progress("encrypt", first, samples)
            # The last call is filled up with its last sample.
            chosen = np.minimum(np.arange(first, first + batch), samples - 1)
            calls.append(side.dump(side.encrypt({k: v[chosen] for k, v in values.items()})))
        progress("encrypt", samples, samples)
        header = CiphertextsHeader(
            circuit=entry.id,
            keys=self._keys[entry.parameters].id,
            batch=batch,
            samples=samples,
            names=tuple(calls[0]),
            request=secrets.token_hex(16),
        )
        return Ciphertexts(header, tuple(calls))

    def decrypt(
        self,
        results: EncryptedResults,
        data: DataLike | None = None,
        asked: Ciphertexts | None = None,
        progress: Progress = quiet,
    ) -> Arrays:
        """Decrypt results, and compute the outputs of the network of them.

        Args:
            results: What a server returned.
            data: What was encrypted; needed where an output depends on an input directly.
            asked: What was sent: results of anything else are refused.
            progress: Called with (what, done, total).

        Raises:
            DataError: The results are of other keys, of another circuit or of another request.
            UserError: There are no keys.
        """
        return self.outputs_of(self.decrypt_quantized(results, asked, progress), data)

    def decrypt_quantized(
        self, results: EncryptedResults, asked: Ciphertexts | None = None, progress: Progress = quiet
    ) -> Arrays:
        """The integers that a server computed, as ``outputs_of`` takes them.

        Args:
            results, asked, progress: As for ``decrypt``.

        Raises:
            DataError, UserError: As ``decrypt``.
        """
        header = results.header
        side, entry = self._ready(header.batch)
        self._check(results, entry, asked)
        parts = []
        for number, call in enumerate(results.calls):
            progress("decrypt", number * header.batch, header.samples)
            parts.append(side.decrypt(side.parse(call)))
        progress("decrypt", header.samples, header.samples)
        return {k: np.concatenate([p[k] for p in parts])[: header.samples] for k in parts[0]}

    def outputs_of(self, decrypted: Mapping[str, np.ndarray], data: DataLike | None = None) -> Arrays:
        """The outputs of the network for decrypted integers; ``data`` as for ``decrypt``."""
        given = {k: v.astype(np.float32) for k, v in decrypted.items()}
        wanted = [n for n in self._epilogue.inputs if n not in given]
        if wanted:
            if data is None:
                raise DataError(
                    "an output depends on an input directly",
                    found=", ".join(wanted),
                    do="give the data that was encrypted, too",
                )
            given |= {k: v for k, v in arrays_for(self.inputs, as_data(data)).items() if k in wanted}
        return self._epilogue.run_batched({k: given[k] for k in self._epilogue.inputs})

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What the network takes."""
        return tuple(
            Input(p.name, tuple(d if isinstance(d, int) else None for d in p.shape), np.dtype(p.dtype))
            for p in self.header.inputs
        )

    @cached_property
    def _prologue(self) -> QuantizingRunner:
        return QuantizingRunner(self._runner(PROLOGUE), read_ranges(self._bundle.parts[RANGES]))

    @cached_property
    def _epilogue(self) -> BatchRunner:
        return self._runner(EPILOGUE)

    def _runner(self, name: str) -> BatchRunner:
        content = self._bundle.parts[name]
        return BatchRunner(sessions.make(content, len(content)))

    def _side(self, batch: int) -> ClientSide:
        if batch not in self._sides:
            self.header.circuit(batch)
            side = side_of(self._bundle.parts, batch, sides_of(self.header.backend).client)
            # The half may be from someone who is not to be trusted: before it makes or uses any key.
            side.check_security(self.header.security_level)
            self._sides[batch] = side
        return self._sides[batch]

    def _use_keys(self, side: ClientSide, entry: CircuitEntry) -> None:
        keys = self._keys[entry.parameters]
        side.use_secret_keys(keys.content)
        self._used[entry.batch] = keys.id

    def _ready(self, batch: int) -> tuple[ClientSide, CircuitEntry]:
        """The side with keys."""
        side, entry = self._side(batch), self.header.circuit(batch)
        known = self._keys.get(entry.parameters)
        if known is None:
            raise UserError(
                "there are no keys yet", do="make them (keygen), or load those that were made (load_keys)"
            )
        if self._used.get(batch) != known.id:
            # Made or loaded for another number of samples, with the same parameters.
            self._use_keys(side, entry)
        return side, entry

    def _check(self, results: EncryptedResults, entry: CircuitEntry, asked: Ciphertexts | None) -> None:
        header = results.header
        own = self._keys[entry.parameters].id
        for what, found, wanted, do in (
            ("another circuit", header.circuit, entry.id, "give the client half that encrypted the inputs"),
            ("other keys", header.keys, own, "decrypt them with the keys that encrypted the inputs"),
        ):
            if found != wanted:
                raise DataError(f"the results are of {what}", found=found[:16], allowed=wanted[:16], do=do)
        if asked is not None and (header.request, header.samples) != (asked.header.request, asked.samples):
            raise DataError(
                "the results are those of another request",
                found=header.request,
                allowed=asked.header.request,
                do="ask again; whoever answered so is at fault",
            )
