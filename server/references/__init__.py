"""Images and videos that clients send: decoded in a bounded child process, stored as raw frames."""
