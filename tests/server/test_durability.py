"""Accepted means durable: a video that `POST` has answered survives a SIGKILL of Redis."""

import os
import signal
import threading
import time
from pathlib import Path

import httpx
from redis import Redis

from cli.processes.embedded_redis import EmbeddedRedis
from jobs import redis_keys
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.settings import Settings
from tests.server.serving import serving


def kill(database: EmbeddedRedis) -> None:
    assert database.pid is not None
    os.kill(database.pid, signal.SIGKILL)
    database.stop()


def waiting(redis: Redis) -> list[str]:
    return [raw.decode() for raw in redis.lrange(redis_keys.queue(redis_keys.queue_name("tiny-text")), 0, -1)]


def test_an_accepted_video_survives_a_crash_of_redis(tmp_path: Path, text_card: ModelCard) -> None:
    database = EmbeddedRedis(tmp_path / "redis")
    settings = Settings(redis_url=database.start(), artifacts=tmp_path / "artifacts")
    assert settings.redis_url is not None
    try:
        with serving(settings) as url, httpx.Client(base_url=url) as http, connect(settings.redis_url) as redis:
            announce(redis, text_card, "w1", ttl_seconds=600)
            body = {"model": "tiny-text", "prompt": "a red circle", "n": 3}
            accepted = http.post("/v1/videos", json=body).json()["data"]
            kill(database)
            away = http.get("/v1/videos")
            assert (away.status_code, away.json()["error"]["code"]) == (503, "job_store_unavailable")

            assert database.start() == settings.redis_url
            # The connections that broke are replaced without anybody noticing.
            assert http.get("/v1/videos", params={"order": "asc"}).json()["data"] == accepted
            assert waiting(redis) == [video["id"] for video in accepted]
            assert http.post("/v1/videos", json=body).status_code == 200
    finally:
        database.stop()


def test_an_idempotency_key_prevents_duplicates_across_a_crash_of_redis(tmp_path: Path, text_card: ModelCard) -> None:
    """A client that repeats each request with its `Idempotency-Key` until it is answered."""
    database = EmbeddedRedis(tmp_path / "redis")
    settings = Settings(redis_url=database.start(), artifacts=tmp_path / "artifacts")
    assert settings.redis_url is not None
    answered: dict[int, str] = {}

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while len(answered) < 30:
                number = len(answered)
                body = {"model": "tiny-text", "prompt": f"circle {number}"}
                answer = http.post("/v1/videos", json=body, headers={"Idempotency-Key": f"order {number}"})
                if answer.status_code == 200:
                    answered[number] = answer.json()["id"]

    try:
        with serving(settings) as url:
            with connect(settings.redis_url) as redis:
                announce(redis, text_card, "w1", ttl_seconds=600)
            client = threading.Thread(target=ask, args=[url])
            client.start()
            for least in (5, 15):
                while len(answered) < least and client.is_alive():
                    time.sleep(0.001)
                kill(database)
                database.start()
            client.join()
            found = httpx.get(f"{url}/v1/videos", params={"limit": 100, "order": "asc"}).json()["data"]
            assert [video["id"] for video in found] == list(answered.values())
            assert len(found) == 30
    finally:
        database.stop()
