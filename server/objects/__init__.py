"""The objects that clients receive."""
