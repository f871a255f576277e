"""HTTP below the application: the connections of clients, the head of a request, and the guard of URLs from clients."""
