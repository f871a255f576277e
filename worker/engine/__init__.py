"""The batching engine: active requests, scheduler, batches and their execution on the device."""
