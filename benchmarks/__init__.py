"""What the parts cost: each benchmark compares two sides in one run and writes its numbers to `results/`."""
