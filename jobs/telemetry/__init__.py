"""Metrics, traces and the context of log lines."""
