"""Checkpoint folders: reading, writing, converting from the published formats."""
