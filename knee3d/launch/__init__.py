"""The same work on other machines: of a Ray cluster, of a Slurm cluster."""
