"""Create a video with the official `openai` client, wait for it, and download it to video.mp4.

Start a server first: `make serve`.
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("FRAMEDIT_SERVER", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("FRAMEDIT_API_KEY", "unused"),
)
video = client.videos.create_and_poll(
    model="demo-text",
    prompt="a red circle moving right on a black background",
    extra_body={"seed": 7},  # fields that the OpenAI API does not have
)
if video.error:
    raise SystemExit(f"{video.id} failed: {video.error.message}")
client.videos.download_content(video.id).write_to_file("video.mp4")
print(f"video.mp4  {video.id}, {video.size}, {video.seconds} s")
