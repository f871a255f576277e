"""Measured properties of a model's passes: time, memory, and which batch sizes give equal bits."""
