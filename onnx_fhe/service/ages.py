"""How long keys were not used, in time that the service ran: whoever sets the clock changes nothing."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from ..ir.paths import write_bytes

FILE = "ages.json"
SAVE_SECONDS = 60.0
"""Seconds between two times that ages are written: what a service that is killed forgets of them."""
DAY = 86400.0
"""Seconds of a day."""


class Ages:
    """When each thing was last used, in seconds that the service ran.

    A file that is missing or damaged makes everything young: nothing is lost by it.

    Args:
        folder: Where they are kept over a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._used: dict[str, float] = {}
        self._before = 0.0
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            plain = json.loads(self._file.read_bytes())
            used = {str(k): float(v) for k, v in plain["used"].items()}
            self._before, self._used = float(plain["now"]), used
        self._began = self._saved = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds that the service has run, in all of its lives."""
        return self._before + time.monotonic() - self._began

    def touch(self, name: str) -> None:
        """It is used now."""
        self._used[name] = self.now

    def of(self, name: str) -> float:
        """Seconds since it was used; what is seen for the first time is used now."""
        return max(self.now - self._used.setdefault(name, self.now), 0.0)

    def forget(self, name: str) -> None:
        """It is gone."""
        self._used.pop(name, None)

    def save(self, *, at_once: bool = False) -> None:
        """Write the ages, unless that was done a moment ago; a full disk is no reason to stop."""
        if at_once or time.monotonic() - self._saved >= SAVE_SECONDS:
            self._saved = time.monotonic()
            plain = json.dumps({"now": self.now, "used": self._used}).encode()
            with suppress(OSError, Exception):
                write_bytes(self._file, plain)
