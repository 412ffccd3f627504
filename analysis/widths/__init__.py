"""Bit widths of accumulators and tables, and which of them Concrete makes equal."""
