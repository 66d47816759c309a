"""Between a sandbox and its edge: the listening socket of a run passes from one to the other."""
