"""The same work on other machines, of a Ray cluster or a Slurm cluster, that share a disk with this one."""
