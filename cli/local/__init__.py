"""The work of commands on this machine, without a server."""
