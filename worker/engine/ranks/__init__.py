"""Several GPUs for one video: a leader, which is an ordinary worker, and ranks, which compute parts of its passes."""
