"""Parts of several benchmarks, and the other sides of their comparisons."""
