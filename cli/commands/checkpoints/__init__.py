"""Commands for checkpoint folders on this machine."""
