"""HTTP below the application: connections, the head of a request, limits by address, the guard of URLs from clients."""
