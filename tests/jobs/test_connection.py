"""The clients of Redis."""

import asyncio

from redis import Redis

from jobs.connection import connect_async


def test_hundreds_of_concurrent_calls_share_a_few_connections(redis: Redis, redis_url: str) -> None:
    redis.set("name", "value")
    before = len(redis.client_list())

    async def ask() -> tuple[list[bytes], int]:
        client = connect_async(redis_url)
        try:
            answers = await asyncio.gather(*(client.get("name") for _ in range(500)))
            return answers, len(await client.client_list())
        finally:
            await client.aclose()

    answers, connections = asyncio.run(ask())
    assert answers == [b"value"] * 500
    assert 0 < connections - before <= 8
