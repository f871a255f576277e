"""Conversion of published checkpoints to checkpoint folders."""
