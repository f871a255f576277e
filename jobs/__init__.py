"""What the server and the workers share: settings, records, the queue, the artifacts and the errors."""
