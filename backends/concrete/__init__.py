"""The backend that makes circuits with concrete-python."""

from __future__ import annotations

from .scratch import install

install()
