"""Evaluation of a checkpoint on decoded MP4s."""
