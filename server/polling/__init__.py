"""Reads for clients that poll: batched across requests, and cached where the answer may be half a second old."""
