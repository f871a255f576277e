"""HTTP below the application: connections, their deadlines, and the head of a request."""
