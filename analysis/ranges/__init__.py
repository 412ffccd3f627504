"""What values an accumulator takes: ranges that always hold, observed ones, and what lies beyond."""
