"""The processes that the commands start: API, workers, embedded database, supervisor."""
