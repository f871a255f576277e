"""`framedit keys`, and the rule that a server on a network needs them."""

import json
from pathlib import Path

import pytest

from cli.embedded_redis import EmbeddedRedis, running_url
from jobs.connection import connect
from jobs.keys import KeyStore

from .test_commands import framedit


def test_the_life_of_a_key(redis_url: str) -> None:
    made = framedit("keys", "create", "--name", "ann", "--requests-per-minute", "60", REDIS_URL=redis_url)
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    with connect(redis_url) as redis:
        key = KeyStore(redis).identify(token).key
    assert key is not None
    assert (key.name, key.scopes, key.limits.requests_per_minute) == ("ann", ("create", "read"), 60)
    assert f"{key.id}: create+read, 60 requests per minute." in made.stderr

    shown = framedit("keys", "list", REDIS_URL=redis_url).stdout
    assert key.id in shown
    assert token.split("-", 2)[2] not in shown
    assert framedit("keys", "revoke", key.id, REDIS_URL=redis_url).stdout == f"{key.id} (ann) is revoked\n"
    [listed] = json.loads(framedit("keys", "list", "--json", REDIS_URL=redis_url).stdout)
    assert (listed["id"], listed["name"]) == (key.id, "ann")
    assert listed["revoked_at"] >= listed["created_at"]


def test_the_way_back_to_a_server_without_keys(redis_url: str) -> None:
    first, second = (
        json.loads(framedit("keys", "create", "--json", REDIS_URL=redis_url).stdout)["id"] for _ in range(2)
    )
    assert "no key is left" not in framedit("keys", "revoke", first, REDIS_URL=redis_url).stderr
    refused = framedit("keys", "disable", REDIS_URL=redis_url)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"framedit: still good: {second}; revoke what is to go first")
    last = framedit("keys", "revoke", second, REDIS_URL=redis_url)
    assert "`framedit keys disable` lets the server do without" in last.stderr
    assert json.loads(framedit("keys", "disable", "--json", REDIS_URL=redis_url).stdout) == {"forgotten": 2}
    assert json.loads(framedit("keys", "list", "--json", REDIS_URL=redis_url).stdout) == []
    assert framedit("keys", "disable", REDIS_URL=redis_url).stdout == "there were no API keys\n"


def test_a_key_as_json(redis_url: str) -> None:
    options = ("--scopes", "admin", "--cost-per-day", "1000", "--videos-in-flight", "5", "--json")
    made = json.loads(framedit("keys", "create", *options, REDIS_URL=redis_url).stdout)
    assert made["key"].startswith("fd-")
    assert made["scopes"] == ["admin"]
    assert made["limits"] == {"requests_per_minute": None, "videos_in_flight": 5, "cost_per_day": 1000.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "--scopes", "create,write"), "scopes has 'write'; there are create, read, admin"),
        (("create", "--cost-per-day", "0"), "cost_per_day is 0.0: Input should be greater than 0"),
        (("revoke", "key_1"), "there is no API key 'key_1'; `framedit keys list` shows those there are"),
    ],
)
def test_what_cannot_be_is_one_clear_line(redis_url: str, arguments: tuple[str, ...], message: str) -> None:
    result = framedit("keys", *arguments, REDIS_URL=redis_url)
    assert result.returncode == 2
    assert result.stderr.startswith(f"framedit: {message}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("folder", ["data", "a-name-that-is-too-long-for-the-path-of-a-socket" * 2])
def test_the_keys_of_serve_are_reached_while_it_runs_and_while_it_does_not(tmp_path: Path, folder: str) -> None:
    data_dir = tmp_path / folder
    first = framedit("keys", "create", "--data-dir", data_dir).stdout.strip()
    assert running_url(data_dir / "redis") is None
    database = EmbeddedRedis(data_dir / "redis")
    try:
        url = database.start()
        assert running_url(data_dir / "redis") == url
        second = framedit("keys", "create", "--data-dir", data_dir).stdout.strip()
        with connect(url) as redis:
            assert all(KeyStore(redis).identify(token).key is not None for token in (first, second))
    finally:
        database.stop()


@pytest.mark.parametrize("command", ["serve", "server"])
def test_a_network_is_not_listened_on_without_keys(redis_url: str, tmp_path: Path, command: str) -> None:
    options = ("--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path)
    result = framedit(command, *options, REDIS_URL=redis_url)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("framedit: with host 0.0.0.0 everybody who reaches this machine could use the server: ")
    assert "`framedit keys create`" in line
    assert "FRAMEDIT_ALLOW_ANONYMOUS=true" in line
