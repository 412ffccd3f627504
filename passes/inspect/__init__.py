"""Passes that change nothing: they say what a model is and costs."""
