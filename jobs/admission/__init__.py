"""Whether a request is accepted, and how long it will wait."""
