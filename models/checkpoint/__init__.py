"""Checkpoint folders: layout, reading, writing, inspection."""
