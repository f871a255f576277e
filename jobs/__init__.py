"""Code that server and workers share: settings, records, queues, artifacts and errors."""
