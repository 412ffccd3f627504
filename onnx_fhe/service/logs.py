"""What the service writes down: a JSON object a line, without tokens, keys and ciphertexts."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO


class Log:
    """Lines on a stream.

    Args:
        stream: Where they go; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._guard = threading.Lock()

    def __call__(self, event: str, facts: Mapping[str, object]) -> None:
        """Write one line.

        Args:
            event: What happened.
            facts: More of it.
        """
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"time": at, "event": event, **facts}, default=str)
        stream = self._stream or sys.stderr
        with self._guard:
            try:
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError):
                return  # a full disk or a closed pipe is no reason to stop
