"""Fewer weights, neurons and layers."""
