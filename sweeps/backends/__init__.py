"""Where runs are executed: this machine, this process, or a SLURM cluster."""
