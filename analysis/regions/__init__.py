"""Which part of a network runs encrypted, and what kind of tensor each of its values is."""
