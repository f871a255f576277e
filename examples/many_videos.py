"""Create several videos, show the progress of all, and download each to <video id>.mp4.

The server sends every change of a video as a server-sent event, so nothing is polled. The worker runs the videos in
one batch where the device gains from it.

Start a server first: `make serve`.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

SERVER = os.environ.get("FRAMEDIT_SERVER", "http://127.0.0.1:8000")
HEADERS = {"Authorization": f"Bearer {os.environ.get('FRAMEDIT_API_KEY', 'unused')}"}
PROMPTS = [
    "a red circle moving right on a black background",
    "a yellow circle growing on a brown background",
    "a white star spinning on a navy background",
]


async def main() -> None:
    async with httpx.AsyncClient(base_url=SERVER, headers=HEADERS, timeout=60) as client:
        await asyncio.gather(*(make_video(client, prompt) for prompt in PROMPTS))


async def make_video(client: httpx.AsyncClient, prompt: str) -> None:
    """Create one video, print its events, and download it."""
    answer = await client.post("/v1/videos", json={"model": "demo-text", "prompt": prompt})
    video = answer.raise_for_status().json()
    async for name, data in events(client, video["id"]):
        if name == "queued":
            print(f"{prompt}: position {data['queue_position']} in the queue")
        elif name == "progress":
            print(f"{prompt}: step {data['step']} of {data['steps']}")
        elif name == "failed":
            print(f"{prompt}: {data['error']['message']}")
        else:
            await download(client, video["id"])
            print(f"{prompt}: {video['id']}.mp4")


async def events(client: httpx.AsyncClient, video_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the data of each event, up to the last one."""
    async with client.stream("GET", f"/v1/videos/{video_id}/events") as stream:
        name = ""
        async for line in stream.raise_for_status().aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


async def download(client: httpx.AsyncClient, video_id: str) -> None:
    content = await client.get(f"/v1/videos/{video_id}/content")
    Path(f"{video_id}.mp4").write_bytes(content.raise_for_status().content)


if __name__ == "__main__":
    asyncio.run(main())
