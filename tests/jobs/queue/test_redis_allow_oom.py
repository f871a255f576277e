"""A client whose writes succeed in a full Redis."""

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError, WatchError

from cli.processes.embedded_redis import EmbeddedRedis
from jobs.connection import connect
from jobs.queue.redis_allow_oom import AllowOomRedis


@pytest.fixture(scope="module")
def full_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("full") / "redis")
    try:
        with connect(server.start()) as redis:
            redis.hset("hash", "field", "before")
            redis.config_set("maxmemory", 1)
            yield redis
    finally:
        server.stop()


@pytest.fixture
def client(full_redis: Redis) -> AllowOomRedis:
    return AllowOomRedis.over(full_redis)


def test_an_ordinary_client_is_refused(full_redis: Redis) -> None:
    with pytest.raises(OutOfMemoryError):
        full_redis.set("key", "value")
    with full_redis.pipeline() as pipe, pytest.raises(OutOfMemoryError):
        pipe.set("key", "value").execute()


def test_single_commands_are_written(client: AllowOomRedis) -> None:
    assert client.set("key", b"\x00\xff")
    assert client.get("key") == b"\x00\xff"
    assert client.set("key", 1, nx=True, ex=60) is None
    assert client.zadd("scores", {"member": 1.5}) == 1


def test_transactions_are_written_and_reply_in_order(client: AllowOomRedis) -> None:
    with client.pipeline() as pipe:
        pipe.hset("hash", mapping={"one": 1, "two": b"\xff"})
        pipe.hget("hash", "missing")
        pipe.expire("hash", 60)
        assert pipe.execute() == [2, None, 1]
    assert client.hget("hash", "two") == b"\xff"


def test_a_watched_key_still_guards_a_transaction(client: AllowOomRedis) -> None:
    with client.pipeline() as pipe:
        pipe.watch("guard")
        client.set("guard", "changed")
        pipe.multi()
        pipe.set("other", 1)
        with pytest.raises(WatchError):
            pipe.execute()
    assert client.get("other") is None


def test_a_script_without_the_flag_is_refused(client: AllowOomRedis) -> None:
    with pytest.raises(OutOfMemoryError):
        client.register_script("return redis.call('SET', KEYS[1], 1)")(keys=["key"])
