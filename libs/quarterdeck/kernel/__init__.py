"""Ids, money, time and errors: values and rules without I/O, clock or randomness."""
