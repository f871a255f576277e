"""The command line: `framedit`."""
