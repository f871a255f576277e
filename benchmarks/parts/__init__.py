"""What several benchmarks share, and the other sides of their comparisons."""
