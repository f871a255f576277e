"""Enhancement and moderation of prompts by other services, before a video is accepted."""
