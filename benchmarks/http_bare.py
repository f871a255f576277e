"""What the server's look at a video is measured against: a FastAPI route that reads one Redis hash, and no more.

python -m benchmarks.http_bare REDIS_URL PORT
"""

import sys
from typing import cast

import uvicorn
from fastapi import FastAPI
from redis.asyncio import BlockingConnectionPool, Redis

from jobs.store import record_key

# As many as help it: an unbounded pool breaks down when a thousand clients come at once.
_CONNECTIONS = 16


def bare_app(redis_url: str) -> FastAPI:
    app = FastAPI()
    redis = Redis(connection_pool=BlockingConnectionPool.from_url(redis_url, max_connections=_CONNECTIONS))

    @app.get("/v1/videos/{video_id}")
    async def hash_of(video_id: str) -> dict[str, str]:
        raw = cast(dict[bytes, bytes], await redis.hgetall(record_key(video_id)))
        return {name.decode(): value.decode() for name, value in raw.items()}

    return app


if __name__ == "__main__":
    uvicorn.run(bare_app(sys.argv[1]), port=int(sys.argv[2]), log_config=None, access_log=False, timeout_keep_alive=30)
