"""What happens to a prompt before a video is accepted: enhancement and moderation by other services."""
