"""Fewer and cheaper table lookups, none of them with another result."""
