"""The HTTP API: validates requests, queues them as jobs, and serves status, events and files."""
