"""Benchmarks. Each compares two sides in one run and writes its numbers to `results/`."""
