import json

import pytest
from redis import Redis

from jobs.errors import KeysInUseError, NotFoundError
from jobs.keys import KeyLimits, KeyStore


@pytest.fixture
def keys(redis: Redis) -> KeyStore:
    return KeyStore(redis)


def test_a_token_is_known_again(keys: KeyStore) -> None:
    limits = KeyLimits(requests_per_minute=60, cost_per_day=1.5)
    key, token = keys.create("ann", ("read", "create", "read"), limits)
    assert (key.name, key.scopes, key.limits) == ("ann", ("create", "read"), limits)
    found = keys.identify(token)
    assert (found.key, found.keys_exist) == (key, True)


def test_what_is_kept_does_not_tell_the_token(redis: Redis, keys: KeyStore) -> None:
    key, token = keys.create()
    kept = redis.hget("framedit:keys", key.id)
    secret = token.split("-", 2)[2]
    assert len(secret) == 43
    assert secret.encode() not in kept
    assert len(json.loads(kept)["secret_sha256"]) == 64
    assert "secret" not in str(keys.list())


def test_no_other_token_is_taken(keys: KeyStore) -> None:
    key, token = keys.create()
    other, _ = keys.create()
    secret = token.split("-", 2)[2]
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    forged = f"fd-{other.id.removeprefix('key_')}-{secret}"
    tokens = (None, "", "unused", token[:-1], token + "x", f" {token}", token.replace(secret, wrong), forged, key.id)
    for candidate in (*tokens, "fd-000000000000-" + "A" * 43, "fd-" + "é" * 12 + "-" + "é" * 43):
        found = keys.identify(candidate)
        assert (found.key, found.keys_exist) == (None, True), candidate


def test_a_revoked_key_is_none_and_goes_on_to_be_asked_for(redis: Redis, keys: KeyStore) -> None:
    assert not keys.exist()
    assert not keys.identify("unused").keys_exist
    key, token = keys.create("ann")
    revoked = keys.revoke(key.id)
    assert revoked.revoked_at is not None
    assert keys.revoke(key.id) == revoked
    found = keys.identify(token)
    assert (found.key, found.keys_exist) == (None, True)
    assert keys.exist()
    assert keys.list() == [revoked]
    assert json.loads(redis.hget("framedit:keys", key.id))["secret_sha256"] == ""


def test_a_key_that_there_is_not(keys: KeyStore) -> None:
    with pytest.raises(NotFoundError, match="no API key 'key_1'"):
        keys.revoke("key_1")


def test_keys_are_done_without_only_once_all_are_revoked(keys: KeyStore) -> None:
    assert keys.disable() == 0
    (first, token), (second, _) = keys.create("ann"), keys.create("ben")
    keys.revoke(first.id)
    with pytest.raises(KeysInUseError, match=f"still good: {second.id}; revoke"):
        keys.disable()
    assert keys.exist()
    keys.revoke(second.id)
    assert keys.disable() == 2
    assert keys.list() == []
    found = keys.identify(token)
    assert (found.key, found.keys_exist) == (None, False)
