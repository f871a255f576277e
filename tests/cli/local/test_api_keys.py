"""`framedit keys`, and the rule that a server on a network needs them."""

import json
import os
import pwd
from pathlib import Path

import pytest

from cli.processes.embedded_redis import EmbeddedRedis, running_url
from jobs.access.api_keys import KeyStore
from jobs.access.usage import UsageGuard
from jobs.access.webhook_secrets import WebhookSecrets
from jobs.connection import connect
from tests.forked import framedit
from tests.jobs.every_role import EveryRole
from tests.jobs.making import make_record


def test_a_key_is_created_listed_and_revoked(redis_url: str) -> None:
    made = framedit("keys", "create", "--name", "ann", "--requests-per-minute", "60", REDIS_URL=redis_url)
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    with connect(redis_url) as redis:
        key = KeyStore(redis).identify(token).key
    assert key is not None
    assert (key.name, key.scopes, key.limits.requests_per_minute) == ("ann", ("create", "read", "delete"), 60)
    assert f"{key.id}: create+read+delete, 60 requests per minute." in made.stderr

    shown = framedit("keys", "list", REDIS_URL=redis_url).stdout
    assert key.id in shown
    assert token.split("-", 2)[2] not in shown
    assert framedit("keys", "revoke", key.id, REDIS_URL=redis_url).stdout == f"{key.id} (ann) is revoked\n"
    [listed] = json.loads(framedit("keys", "list", "--json", REDIS_URL=redis_url).stdout)
    assert (listed["id"], listed["name"]) == (key.id, "ann")
    assert listed["revoked_at"] >= listed["created_at"]


def test_a_key_expires_and_has_priorities(redis_url: str) -> None:
    options = ("--expires", "90d", "--priorities", "low,normal", "--json")
    made = json.loads(framedit("keys", "create", *options, REDIS_URL=redis_url).stdout)
    assert made["priorities"] == ["normal", "low"]
    assert made["expires_at"] == pytest.approx(made["created_at"] + 90 * 24 * 3600)
    shown = framedit("keys", "list", REDIS_URL=redis_url).stdout
    assert "priorities normal+low, until " in shown


def test_a_rotated_key_has_two_secrets_for_a_while(redis_url: str) -> None:
    before = framedit("keys", "create", REDIS_URL=redis_url).stdout.strip()
    with connect(redis_url) as redis:
        [key] = KeyStore(redis).list()
        after = framedit("keys", "rotate", key.id, "--overlap", "1h", REDIS_URL=redis_url).stdout.strip()
        assert after != before
        found = [KeyStore(redis).identify(token).key for token in (before, after)]
        assert [key.id for key in found if key] == [key.id, key.id]


def test_commands_are_in_the_audit_log(redis_url: str, tmp_path: Path) -> None:
    env = {"REDIS_URL": redis_url, "FRAMEDIT_AUDIT_LOG": str(tmp_path / "audit.log")}
    key_id = json.loads(framedit("keys", "create", "--json", **env).stdout)["id"]
    framedit("keys", "rotate", key_id, **env)
    framedit("keys", "list", **env)
    framedit("keys", "revoke", key_id, **env)
    framedit("keys", "disable", **env)
    entries = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    commands = ["keys create", "keys rotate", "keys revoke", "keys disable"]
    assert [entry["command"] for entry in entries] == commands
    assert [entry["key"] for entry in entries] == [key_id, key_id, key_id, None]
    assert {entry["user"] for entry in entries} == {pwd.getpwuid(os.getuid()).pw_name}


def test_usage_is_shown_by_day_and_key(redis_url: str) -> None:
    with connect(redis_url) as redis:
        for owner, cost in (("key_a", 40), ("key_b", 2)):
            record = make_record().model_copy(update={"owner": owner, "cost": cost})
            EveryRole(redis).create(record, guards=[UsageGuard(owner)])
    rows = json.loads(framedit("keys", "usage", "--json", REDIS_URL=redis_url).stdout)
    assert [(row["key"], row["videos"], row["cost"]) for row in rows] == [("key_a", 1, 40), ("key_b", 1, 2)]
    table = framedit("keys", "usage", "key_b", "--csv", REDIS_URL=redis_url).stdout.splitlines()
    assert table == ["date,key,videos,cost", f"{rows[1]['date']},key_b,1,2"]
    assert "key_a" in framedit("keys", "usage", REDIS_URL=redis_url).stdout


def test_disable_works_after_all_keys_are_revoked(redis_url: str) -> None:
    first, second = (
        json.loads(framedit("keys", "create", "--json", REDIS_URL=redis_url).stdout)["id"] for _ in range(2)
    )
    assert "no active API key is left" not in framedit("keys", "revoke", first, REDIS_URL=redis_url).stderr
    refused = framedit("keys", "disable", REDIS_URL=redis_url)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"framedit: these keys are active: {second}; revoke them first")
    last = framedit("keys", "revoke", second, REDIS_URL=redis_url)
    assert "`framedit keys disable` makes the server accept requests without one" in last.stderr
    assert json.loads(framedit("keys", "disable", "--json", REDIS_URL=redis_url).stdout) == {"forgotten": 2}
    assert json.loads(framedit("keys", "list", "--json", REDIS_URL=redis_url).stdout) == []
    assert framedit("keys", "disable", REDIS_URL=redis_url).stdout == "there were no API keys\n"


def test_create_prints_json(redis_url: str) -> None:
    options = ("--scopes", "admin", "--cost-per-day", "1000", "--videos-in-flight", "5", "--json")
    made = json.loads(framedit("keys", "create", *options, REDIS_URL=redis_url).stdout)
    assert made["key"].startswith("fd-")
    assert made["scopes"] == ["admin"]
    limits = {"requests_per_minute": None, "videos_in_flight": 5, "videos_kept": None, "cost_per_day": 1000.0}
    assert made["limits"] == limits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "--scopes", "create,write"), "scopes contains 'write'; allowed are create, read, delete, admin"),
        (("create", "--priorities", "urgent"), "priorities contains 'urgent'; allowed are high, normal, low"),
        (("create", "--expires", "soon"), "--expires is 'soon'; give a number and a unit: 45s, 30m, 24h or 90d"),
        (("create", "--cost-per-day", "0"), "cost_per_day is 0.0: Input should be greater than 0"),
        (("revoke", "key_1"), "there is no API key 'key_1'; `framedit keys list` shows all keys"),
    ],
)
def test_an_invalid_option_is_one_line(redis_url: str, arguments: tuple[str, ...], message: str) -> None:
    result = framedit("keys", *arguments, REDIS_URL=redis_url)
    assert result.returncode == 2
    assert result.stderr.startswith(f"framedit: {message}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("folder", ["data", "a-name-that-is-too-long-for-the-path-of-a-socket" * 2])
def test_keys_works_whether_serve_is_running_or_not(tmp_path: Path, folder: str) -> None:
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
def test_a_server_on_a_network_needs_keys(redis_url: str, tmp_path: Path, command: str) -> None:
    options = ("--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path)
    result = framedit(command, *options, REDIS_URL=redis_url)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("framedit: host 0.0.0.0 is reachable from a network and no API keys exist: ")
    assert "`framedit keys create`" in line
    assert "FRAMEDIT_ALLOW_ANONYMOUS=true" in line


def test_the_webhook_secret_of_a_key_is_shown(redis_url: str) -> None:
    with connect(redis_url) as redis:
        key, _ = KeyStore(redis).create()
    old, new = "an old secret of the server", "a new secret of the server"
    env = {"FRAMEDIT_WEBHOOK_SECRET": new, "FRAMEDIT_WEBHOOK_SECRET_PREVIOUS": old}
    shown = framedit("keys", "webhook-secret", key.id, REDIS_URL=redis_url, **env)
    assert shown.stdout.split() == [*WebhookSecrets(new, old).shown(key.id)]
    refused = framedit("keys", "webhook-secret", "key_0", REDIS_URL=redis_url, **env)
    assert (refused.returncode, refused.stdout) == (2, "")
