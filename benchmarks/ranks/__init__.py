"""Several GPUs for one video."""
