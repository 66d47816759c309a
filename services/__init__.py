"""The services, a package each, with the same rooms; they meet on the bus and nowhere else."""
