"""A study as jobs of a SLURM cluster."""
