"""The page for people: static files, without a build step and without a request to anywhere else."""
