"""Samples on axis 0: where a model carries them, and a model rewritten so that they are there."""
