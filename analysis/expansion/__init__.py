"""Operators on several encrypted elements as sums and lookups, apart from what is wider."""
