"""How many bits reach each table, and where the lattice lies that rounding leaves."""
