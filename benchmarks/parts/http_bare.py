"""The baseline of polling: a FastAPI route that only reads one Redis hash.

python -m benchmarks.parts.http_bare REDIS_URL PORT
"""

import sys
from typing import cast

import uvicorn
from fastapi import FastAPI
from redis.asyncio import BlockingConnectionPool, Redis

from jobs import redis_keys

# More connections do not help, and an unbounded pool breaks down with a thousand clients.
_CONNECTIONS = 16


def bare_app(redis_url: str) -> FastAPI:
    app = FastAPI()
    redis = Redis(connection_pool=BlockingConnectionPool.from_url(redis_url, max_connections=_CONNECTIONS))

    @app.get("/v1/videos/{video_id}")
    async def hash_of(video_id: str) -> dict[str, str]:
        raw = cast(dict[bytes, bytes], await redis.hgetall(redis_keys.video(video_id)))
        return {name.decode(): value.decode() for name, value in raw.items()}

    return app


if __name__ == "__main__":
    uvicorn.run(bare_app(sys.argv[1]), port=int(sys.argv[2]), log_config=None, access_log=False, timeout_keep_alive=30)
