"""The approval service's outside: the process that judges rules, and the key that seals grants."""
