"""The steps of ``normalize``, each a small rewrite."""
