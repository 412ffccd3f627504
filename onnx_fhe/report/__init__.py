"""The report: one HTML file about a compiled network, for people to look at."""

from __future__ import annotations
