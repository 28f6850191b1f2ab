"""The front door and where it runs: here, through accelerate, through Slurm. May import every room."""
