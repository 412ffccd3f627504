"""A circuit in two halves: a client with the keys, a server that computes, and the files between them."""
