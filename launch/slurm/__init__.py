"""An experiment as Slurm jobs: their scripts, what a node runs, what was submitted and what became of it."""
