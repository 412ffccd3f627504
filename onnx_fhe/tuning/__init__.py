"""Searching the pipelines of a model for the best trade-off between accuracy and cost."""
