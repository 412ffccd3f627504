"""The memory of a search: an Optuna study in a journal file that survives being stopped at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import optuna
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from ..ir.errors import OutputError, UserError
from .clock import undisturbed
from .goal import Goal
from .space import Parameters
from .trying import Outcome

_CHOICE, _FOUND, _FAILED, _TEXT = "parameters", "found", "failed", "pipeline"
_FINGERPRINT = "fingerprint"
STARTUP_TRIALS = 4
"""Finished trials after which Optuna's sampler uses what it has learnt."""


class Study:
    """Trials by number, each with its choice and what came of it.

    Args:
        path: The journal; None to remember nothing past this process.
        fingerprint: Hash of all that a trial's result depends on.
        goal: The constraints; searches with other constraints share what was tried.
        higher_is_better: Whether a higher score is the better one.
        seed: Seed of the sampler.

    Raises:
        UserError: The journal is in use, damaged, or of another search.
        OutputError: It cannot be written.
    """

    def __init__(
        self, path: Path | None, fingerprint: str, goal: Goal, higher_is_better: bool, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._lock: int | None = None
        self._storage: BaseStorage = InMemoryStorage()
        if path is not None:
            self._lock = _lock(path)
            self._storage = _open(path)
        name = hashlib.sha256(repr(goal).encode()).hexdigest()[:16]
        others = optuna.get_all_study_names(self._storage)
        self.known: dict[tuple[str, float], Outcome] = {}
        for other in others:
            study = optuna.load_study(study_name=other, storage=self._storage)
            if study.user_attrs.get(_FINGERPRINT, fingerprint) != fingerprint:
                self.close()
                raise UserError(
                    "this search was begun with another model, other data, settings or versions",
                    file=str(path),
                    do="give the same ones, name another output, or delete this file to begin anew",
                )
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        self._study = optuna.create_study(
            study_name=name,
            storage=self._storage,
            directions=[up if higher_is_better else down, down],
            load_if_exists=True,
        )
        self._study.set_user_attr(_FINGERPRINT, fingerprint)
        with warnings.catch_warnings():
            # What is experimental of it are names of arguments.
            warnings.simplefilter("ignore")
            # Not the same draws again where a search goes on.
            sampler = TPESampler(
                seed=seed + len(self._study.trials),
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=STARTUP_TRIALS,
            )
        self._study.sampler = sampler
        self._trials: dict[int, Trial] = {}
        self._goal = goal
        for other in others:
            if other != name:
                self._adopt(optuna.load_study(study_name=other, storage=self._storage))
        self._repair()

    @undisturbed()
    def finished(self) -> list[tuple[int, Parameters, Outcome]]:
        """All finished trials by number: choice and what came of it."""
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            outcome = _outcome(trial)
            if outcome is not None and trial.state.is_finished():
                found.append((trial.number, dict(trial.user_attrs[_CHOICE]), outcome))
        return found

    @undisturbed()
    def waiting(self) -> bool:
        """Whether choices are queued."""
        return any(t.state is TrialState.WAITING for t in self._study.get_trials(deepcopy=False))

    @undisturbed()
    def queue(self, chosen: Parameters, pipeline: str | None = None) -> None:
        """Have ``ask`` return this choice next, or after what is queued already."""
        own = {} if pipeline is None else {_TEXT: pipeline}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.enqueue_trial(chosen, own)

    @undisturbed()
    def ask(self) -> tuple[Trial, str | None]:
        """The next trial, and its pipeline where that is no choice of the space."""
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return trial, trial.user_attrs.get(_TEXT)

    @undisturbed()
    def record(
        self, number: int, chosen: Parameters, outcome: Outcome, violations: Mapping[str, float]
    ) -> None:
        """A trial ended. What came of it is on the disk when this returns."""
        trial = self._trials.pop(number)
        trial.set_user_attr(_CHOICE, chosen)
        if outcome.found is None:
            trial.set_user_attr(_FAILED, asdict(outcome))
            self._study.tell(trial, state=TrialState.FAIL)
            return
        for name, value in violations.items():
            trial.set_constraint(name, value)
        trial.set_user_attr(_FOUND, outcome.found)
        self._study.tell(trial, [outcome.found["score"], outcome.found["seconds"]])

    @undisturbed()
    def drop(self, number: int) -> None:
        """A trial that was tried before: no news."""
        self._study.tell(self._trials.pop(number), state=TrialState.FAIL)

    def close(self) -> None:
        """Let another process have the journal."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _adopt(self, other: optuna.Study) -> None:
        """Take over what was found under other constraints, in ``known``, so that nothing is tried twice."""
        for trial in other.get_trials(deepcopy=False):
            outcome = _outcome(trial)
            if outcome is None or outcome.found is None:
                continue
            key = (outcome.pipeline, outcome.p_error)
            if key not in self.known:
                self.known[key] = outcome
                mine = [t.user_attrs.get(_CHOICE) for t in self._study.get_trials(deepcopy=False)]
                if trial.user_attrs[_CHOICE] not in mine:
                    self.queue(dict(trial.params), trial.user_attrs.get(_TEXT))

    def _repair(self) -> None:
        """Trials that ran when the search was stopped: told, where their result was written; else queued."""
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is not TrialState.RUNNING:
                continue
            outcome = _outcome(trial)
            if outcome is not None and outcome.found is not None:
                self._study.tell(trial.number, [outcome.found["score"], outcome.found["seconds"]])
                continue
            self._study.tell(trial.number, state=TrialState.FAIL)
            if outcome is None and trial.params:
                self.queue(dict(trial.params), trial.user_attrs.get(_TEXT))


def _outcome(trial: FrozenTrial) -> Outcome | None:
    if _FOUND in trial.user_attrs:
        found = dict(trial.user_attrs[_FOUND])
        return Outcome(found["pipeline"], found["p_error"], found)
    if _FAILED in trial.user_attrs:
        return Outcome(**trial.user_attrs[_FAILED])
    return None


def _lock(path: Path) -> int:
    """Hold the journal for this process; the system lets go of it however the process ends."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(
            "the journal of the search cannot be written", file=str(path), found=error.strerror or str(error)
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise UserError(
            "another process is searching with this journal",
            file=str(path),
            do="wait for it, or name another output",
        ) from error
    return handle


def _open(path: Path) -> JournalStorage:
    """Optuna's storage, after what a kill may have left half done is cleared away."""
    # Ours is the only process: a lock of Optuna's is that of one that was killed.
    with suppress(FileNotFoundError):
        Path(f"{path}.lock").unlink()
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise UserError(
                "the journal of the search is damaged",
                file=str(path),
                found=f"line {number}: {error}",
                do="delete it to begin anew",
            ) from error
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except Exception as error:
        raise UserError(
            "this is no journal of a search",
            file=str(path),
            found=f"{type(error).__name__}: {error}",
            do="delete it to begin anew, or name another output",
        ) from error
