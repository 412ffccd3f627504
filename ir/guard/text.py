"""Names: protobuf hands over what is no UTF-8 as bytes, which nothing behind it expects."""

from __future__ import annotations

from ..errors import ModelError

_MAX_NAME_CHARACTERS = 10_000
"""Characters of a name; past it a name is no label but a way to fill memory and messages."""


def must_be_text(*names: object) -> None:
    """Refuse a name that is no text, or longer than any.

    Raises:
        ModelError: There is one.
    """
    for name in names:
        if not isinstance(name, str):
            raise ModelError(
                "a name in the model is not text",
                found=f"bytes that are no UTF-8: {bytes(str(name), 'utf-8')[:60]!r}",
                allowed="names in UTF-8",
                do="export the model again",
            )
        if len(name) > _MAX_NAME_CHARACTERS:
            raise ModelError(
                "a name in the model is too long",
                found=f"{len(name)} characters: {name[:40]!r}...",
                allowed=f"up to {_MAX_NAME_CHARACTERS}",
                do="export the model again",
            )
