"""Who may use the service: a file of tokens, one for each client."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from ..ir.errors import UserError

ANYONE = "anyone"
"""The one client of a service without tokens."""
MIN_TOKEN = 16
"""Characters of the shortest token: 16 random ones nobody guesses."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOKEN = re.compile(r"[!-9;-~]+")


def read_tokens(path: str | os.PathLike[str]) -> dict[str, str]:
    """The names of the clients by their tokens.

    Args:
        path: A file that its owner alone reads, with a line ``token`` or ``name:token`` for each client.
            Lines that begin with # are skipped. Two tokens of one name are one client, whose keys they share.

    Raises:
        UserError: The file cannot be read, others may read it, it holds no token, or one that is none.
    """
    file = Path(path)
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "the file of tokens cannot be read", file=str(file), found=str(error), do="check the path"
        ) from error
    if mode & 0o077:
        raise UserError(
            "others may read the file of tokens",
            file=str(file),
            found=f"mode {mode:o}",
            allowed="600",
            do=f"chmod 600 {file}, and make new tokens where others may have read them",
        )
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, token = _parsed(text, number, file)
            found[token] = name
    if not found:
        raise UserError(
            "the file of tokens holds none",
            file=str(file),
            do="write a line name:token for each client (a token: openssl rand -hex 32)",
        )
    return found


def _parsed(line: str, number: int, file: Path) -> tuple[str, str]:
    name, _, token = line.rpartition(":")
    if len(token) < MIN_TOKEN or not _TOKEN.fullmatch(token) or (name and not _NAME.fullmatch(name)):
        # The line itself is not shown: it may hold a token.
        raise UserError(
            "a line of the file of tokens is none",
            file=str(file),
            found=f"line {number}",
            allowed=f"name:token, a name of letters, digits, - and _, a token of {MIN_TOKEN} characters or"
            " more without spaces and colons",
            do="make a token with: openssl rand -hex 32",
        )
    return name or "token-" + hashlib.sha256(token.encode()).hexdigest()[:16], token


def client_of(header: str | None, tokens: Mapping[str, str] | None) -> str | None:
    """The name of the client that a request comes from.

    Args:
        header: The request's ``Authorization``.
        tokens: What ``read_tokens`` returned; None: anyone.

    Returns:
        Its name; None for nobody who is known. The time that this takes tells nothing of the tokens.
    """
    if tokens is None:
        return ANYONE
    scheme, _, given = (header or "").partition(" ")
    found = None
    digest = hashlib.sha256(given.strip().encode(errors="replace")).digest()
    for token, name in tokens.items():
        if hmac.compare_digest(digest, hashlib.sha256(token.encode()).digest()):
            found = name
    return found if scheme.lower() == "bearer" else None
