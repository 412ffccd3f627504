"""From quantizers and float operators to integers and table lookups."""
