"""Dropping the least significant bits in front of tables, and what the tables hold then."""
