"""The dispatcher thread of a worker: claims jobs, reports their progress, and writes down their outcomes."""
