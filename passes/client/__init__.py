"""What of a network its client computes, by its owner's choice."""
