"""Load on a server of the videos API: what is sent, how it is timed, and how the result is shown."""
