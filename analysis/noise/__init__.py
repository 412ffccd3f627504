"""The errors of encryption: a model that makes them in the clear."""
