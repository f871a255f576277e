"""Events of videos: one reader for all clients, and what waits for an event."""
