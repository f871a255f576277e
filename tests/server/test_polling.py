"""The route that clients poll: consistent with the list, with one Redis exchange for many requests."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from jobs.admission.eta import Forecast
from jobs.connection import connect_async
from jobs.videos.store import VideoStore
from server.polling.batched_redis import BatchedRedis
from server.polling.video_read import parse_record, poll_after_ms, read_commands
from tests.jobs.making import make_record


def test_retrieve_and_list_agree(http: httpx.Client, store: VideoStore, finish: Callable[[str, bytes], None]) -> None:
    body = {"model": "tiny-text", "prompt": "x", "n": 4, "metadata": {"a": 'b"'}}
    waiting, running, done, failed = (video["id"] for video in http.post("/v1/videos", json=body).json()["data"])
    store.start(running, "w1")
    store.progress(running, 3, 20, "w1")
    finish(done, b"mp4")
    store.fail(failed, "worker_lost", "gone")
    listed = {video["id"]: video for video in http.get("/v1/videos").json()["data"]}
    for video_id in (waiting, running, done, failed):
        answer = http.get(f"/v1/videos/{video_id}")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == listed[video_id]
        assert ("openai-poll-after-ms" in answer.headers) == (video_id in (waiting, running))


def test_the_poll_interval_grows_with_the_eta() -> None:
    pauses = [poll_after_ms(Forecast(1, seconds)) for seconds in (None, 0.0, 30.0, 60.0, 3600.0)]
    assert pauses == [1000, 500, 1500, 3000, 5000]


def test_concurrent_reads_share_one_exchange(redis: Redis, redis_url: str) -> None:
    for index in range(100):
        redis.set(f"k{index}", index)

    async def ask_all() -> list[list[bytes]]:
        batched = BatchedRedis(connect_async(redis_url))
        await batched.read(("PING",))
        exchanges: list[int] = []
        exchange = batched._exchange

        async def counted(asked: list[object]) -> None:
            exchanges.append(len(asked))
            await exchange(asked)  # type: ignore[arg-type]

        batched._exchange = counted  # type: ignore[assignment, method-assign]
        try:
            found = await asyncio.gather(*(batched.read(("GET", f"k{index}")) for index in range(100)))
            assert exchanges == [100]
            return found
        finally:
            await batched.aclose()

    assert asyncio.run(ask_all()) == [[str(index).encode()] for index in range(100)]


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_record_is_read_by_either_protocol(store: VideoStore, redis_url: str, protocol: int) -> None:
    record = make_record(metadata={"a": "b"})
    store.create(record)

    async def ask() -> list[object]:
        batched = BatchedRedis(connect_async(f"{redis_url}?protocol={protocol}"))
        try:
            return await batched.read(*read_commands(record.id))
        finally:
            await batched.aclose()

    assert parse_record(record.id, asyncio.run(ask())) == store.get(record.id)


def test_failed_and_cancelled_reads_do_not_affect_others(redis: Redis, redis_url: str) -> None:
    redis.set("text", "x")

    async def ask() -> None:
        batched = BatchedRedis(connect_async(redis_url))
        try:
            leaving = asyncio.create_task(batched.read(("GET", "text")))
            wrong = asyncio.create_task(batched.read(("HGETALL", "text")))
            right = asyncio.create_task(batched.read(("GET", "text"), ("EXISTS", "text")))
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(ResponseError):
                await wrong
            assert await right == [b"x", 1]
        finally:
            await batched.aclose()

    asyncio.run(ask())


def test_without_redis_every_read_fails() -> None:
    async def ask() -> list[object]:
        batched = BatchedRedis(connect_async("redis://127.0.0.1:1"))
        try:
            return await asyncio.gather(*(batched.read(("PING",)) for _ in range(3)), return_exceptions=True)
        finally:
            await batched.aclose()

    assert all(isinstance(answer, RedisError) for answer in asyncio.run(ask()))
