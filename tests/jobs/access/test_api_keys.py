import json
import threading
from collections.abc import Sequence

import pytest
from redis import Redis

from jobs.access.api_keys import KeyLimits, KeyStore
from jobs.errors import KeysInUseError, NotFoundError, RevokedKeyError


@pytest.fixture
def keys(redis: Redis) -> KeyStore:
    return KeyStore(redis)


def test_a_token_identifies_its_key(keys: KeyStore) -> None:
    limits = KeyLimits(requests_per_minute=60, cost_per_day=1.5)
    key, token = keys.create("ann", ("read", "create", "read"), limits)
    assert (key.name, key.scopes, key.limits) == ("ann", ("create", "read"), limits)
    found = keys.identify(token)
    assert (found.key, found.keys_exist) == (key, True)


def test_the_stored_key_does_not_contain_the_secret(redis: Redis, keys: KeyStore) -> None:
    key, token = keys.create()
    kept = redis.hget("framedit:keys", key.id)
    secret = token.split("-", 2)[2]
    assert len(secret) == 43
    assert secret.encode() not in kept
    assert len(json.loads(kept)["secret_sha256"]) == 64
    assert "secret" not in str(keys.list())


def test_other_tokens_identify_no_key(keys: KeyStore) -> None:
    key, token = keys.create()
    other, _ = keys.create()
    secret = token.split("-", 2)[2]
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    forged = f"fd-{other.id.removeprefix('key_')}-{secret}"
    tokens = (None, "", "unused", token[:-1], token + "x", f" {token}", token.replace(secret, wrong), forged, key.id)
    for candidate in (*tokens, "fd-000000000000-" + "A" * 43, "fd-" + "é" * 12 + "-" + "é" * 43):
        found = keys.identify(candidate)
        assert (found.key, found.keys_exist) == (None, True), candidate


def test_a_revoked_key_is_refused_and_keys_stay_required(redis: Redis, keys: KeyStore) -> None:
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


def test_an_unknown_key_is_not_found(keys: KeyStore) -> None:
    with pytest.raises(NotFoundError, match="no API key 'key_1'"):
        keys.revoke("key_1")


def test_keys_can_be_disabled_only_after_all_are_revoked(keys: KeyStore) -> None:
    assert keys.disable() == 0
    (first, token), (second, _) = keys.create("ann"), keys.create("ben")
    keys.revoke(first.id)
    with pytest.raises(KeysInUseError, match=f"these keys are active: {second.id}; revoke"):
        keys.disable()
    assert keys.exist()
    keys.revoke(second.id)
    assert keys.disable() == 2
    assert keys.list() == []
    found = keys.identify(token)
    assert (found.key, found.keys_exist) == (None, False)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def identified(keys: KeyStore, *tokens: str) -> Sequence[bool]:
    return [keys.identify(token).key is not None for token in tokens]


def test_a_key_expires(redis: Redis) -> None:
    clock = Clock()
    keys = KeyStore(redis, clock)
    _, token = keys.create(expires_in_seconds=60)
    assert identified(keys, token) == [True]
    clock.now += 60
    found = keys.identify(token)
    assert (found.key, found.keys_exist, found.has_expired) == (None, True, True)
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert not keys.identify(wrong).has_expired
    assert keys.disable() == 1, "an expired key is not in use"


def test_both_secrets_are_valid_during_the_overlap(redis: Redis) -> None:
    clock = Clock()
    keys = KeyStore(redis, clock)
    key, old = keys.create("ann", limits=KeyLimits(videos_kept=3))
    rotated, new = keys.rotate(key.id, overlap_seconds=3600)
    assert identified(keys, old, new) == [True, True]
    assert rotated == key.model_copy(update={"previous_valid_until": clock.now + 3600})
    assert keys.identify(old).key == keys.identify(new).key
    clock.now += 3600
    assert identified(keys, old, new) == [False, True]


def test_a_second_rotation_ends_the_first_secret(keys: KeyStore) -> None:
    key, first = keys.create()
    _, second = keys.rotate(key.id, 3600)
    _, third = keys.rotate(key.id, 3600)
    assert identified(keys, first, second, third) == [False, True, True]
    _, fourth = keys.rotate(key.id)
    assert identified(keys, first, second, third, fourth) == [False, False, False, True]


def test_revoking_ends_both_secrets_and_rotation(redis: Redis, keys: KeyStore) -> None:
    key, old = keys.create()
    _, new = keys.rotate(key.id, 3600)
    keys.revoke(key.id)
    assert identified(keys, old, new) == [False, False]
    with pytest.raises(RevokedKeyError, match="is revoked; create another key"):
        keys.rotate(key.id)
    stored = json.loads(redis.hget("framedit:keys", key.id))
    assert (stored["secret_sha256"], stored["previous_sha256"]) == ("", "")


def test_a_revocation_during_rotations_is_not_undone(keys: KeyStore) -> None:
    key, _ = keys.create()
    revoked = threading.Event()

    def rotate() -> None:
        while not revoked.is_set():
            try:
                keys.rotate(key.id)
            except RevokedKeyError:
                return

    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    keys.revoke(key.id)
    revoked.set()
    for thread in threads:
        thread.join()
    assert keys.list()[0].revoked_at is not None


def test_a_key_of_an_older_version_may_delete_what_it_creates(redis: Redis, keys: KeyStore) -> None:
    for scopes in (("create", "read"), ("read",)):
        key, token = keys.create(scopes=scopes)
        stored = json.loads(redis.hget("framedit:keys", key.id))
        del stored["version"], stored["priorities"], stored["expires_at"], stored["previous_sha256"]
        redis.hset("framedit:keys", key.id, json.dumps(stored))
        found = keys.identify(token).key
        assert found is not None
        assert ("delete" in found.scopes) == ("create" in scopes)
    key, _ = keys.create(scopes=("create",))
    assert key.scopes == ("create",)
