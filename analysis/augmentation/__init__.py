"""Samples made of typical inputs: mixtures, noise, and images moved a little."""
