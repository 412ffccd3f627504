"""What ``distill`` is made of; only that pass imports it, because it imports torch."""
