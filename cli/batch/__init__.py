"""Many videos from the rows of a file."""
