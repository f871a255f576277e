"""Creates the videos of a request: model choice, limits, idempotency."""
