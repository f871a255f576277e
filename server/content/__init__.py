"""Responses that carry the files of videos."""
