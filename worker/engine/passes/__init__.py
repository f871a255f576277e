"""Forward passes: the batch of requests, its step, and the execution on the device."""
