"""What happens to a request before the engine: its reference is read, its prompt and its reference are encoded."""
