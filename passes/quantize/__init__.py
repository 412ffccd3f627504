"""Weights, inputs and activations become small integers times a scale."""
