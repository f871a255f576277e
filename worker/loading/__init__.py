"""Load models from checkpoint folders, keep them in memory, unload them."""
