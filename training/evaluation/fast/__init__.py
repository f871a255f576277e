"""Measuring videos of the fast world by classical image processing: attributes, paths, identity, distances."""
