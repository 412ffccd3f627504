"""What outputs mean (classes or values), and how far two sets of them are apart."""
