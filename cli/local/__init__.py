"""What commands do on this machine, without a server."""
