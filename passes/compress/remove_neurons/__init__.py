"""Neurons and channels go, and others take over what they did."""
