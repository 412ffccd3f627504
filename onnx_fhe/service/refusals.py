"""What the service answers where it does not do what was asked."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from ..ir.errors import OnnxFheError, printable

RETRY_SECONDS = 2
"""Seconds after which a client may ask again, where nothing better is known."""
_TEXT_CHARACTERS = 500
"""Characters of each part of a message: what was found may be of any length."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """An answer that is no success.

    Args:
        status: The HTTP status.
        code: A word that programs know it by.
        what: One sentence that says what is wrong.
        found, allowed, do: As for every error of onnx-fhe.
        retry: Seconds after which the same request may succeed; 0: never.
    """

    def __init__(
        self,
        status: int,
        code: str,
        what: str,
        *,
        found: str = "",
        allowed: str = "",
        do: str = "",
        retry: int = 0,
    ) -> None:
        super().__init__(what)
        self.status, self.code, self.what, self.retry = status, code, what, retry
        self.found, self.allowed, self.do = found, allowed, do

    @classmethod
    def of(cls, error: OnnxFheError, status: int, code: str) -> Refusal:
        """An error of onnx-fhe as an answer. The name of a file stays here: it is one of the service's."""
        return cls(status, code, error.what, found=error.found, allowed=error.allowed, do=error.do)

    def body(self, request: str) -> dict[str, Any]:
        """The body of the answer.

        Args:
            request: The id of the request, as in the log.
        """
        told = {"what": self.what, "found": self.found, "allowed": self.allowed, "do": self.do}
        texts = {k: printable(v)[:_TEXT_CHARACTERS] for k, v in told.items()}
        return {"error": {"code": self.code, **texts, "request": request}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        found = {"Retry-After": str(self.retry)} if self.retry else {}
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found


def busy(what: str, *, found: str, allowed: str, retry: int = RETRY_SECONDS) -> Refusal:
    """Too much at the same time: 429."""
    return Refusal(429, "busy", what, found=found, allowed=allowed, do="ask again later", retry=retry)


def unfit(told: Mapping[str, str]) -> Refusal:
    """Inputs or keys that do not fit the circuit: 422; ``told`` as ``worker.Answer`` has it."""
    what, found, allowed, do = (told.get(k, "") for k in ("what", "found", "allowed", "do"))
    return Refusal(422, "unfit", what, found=found, allowed=allowed, do=do)


def too_large(what: str, *, found: str, allowed: str, do: str) -> Refusal:
    """More than is allowed: 413."""
    return Refusal(413, "too-large", what, found=found, allowed=allowed, do=do)


def disk(error: OSError) -> Refusal:
    """A file cannot be written: 507 where the disk is full, else 500."""
    if error.errno in _FULL:
        return Refusal(
            507,
            "disk-full",
            "the disk of the service is full; nothing was kept",
            do="ask again when its operator has made room",
            retry=60,
        )
    return Refusal(
        500, "disk", "the service cannot write to its disk; nothing was kept", do="tell its operator"
    )
