"""Entries of rounded tables, fitted to the outputs of the network."""
