"""Operators on several encrypted elements as sums and lookups; see ``lower-to-lookups``."""
