"""The HTTP API: takes requests, checks them, puts them on the queue and hands out the videos."""
