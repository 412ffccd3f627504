"""Single weights become zero."""
