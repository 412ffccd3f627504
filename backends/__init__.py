"""What makes circuits of integer-level models, and runs them."""
