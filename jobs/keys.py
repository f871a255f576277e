"""API keys: who may ask for what, and how much of it.

A key is `fd-<id>-<secret>`, shown once, when it is made. Redis keeps the rest of it (`ApiKey`) in the hash
`framedit:keys`, with the SHA-256 of the secret. A revoked key stays there without its hash: a server that ever had keys
goes on asking for them, rather than open itself to everybody when the last one is taken back. Only `disable` ends that.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis
from redis.client import Pipeline

from jobs.errors import KeysInUseError, NotFoundError

Scope = Literal["create", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("create", "read", "admin")
DEFAULT_SCOPES: tuple[Scope, ...] = ("create", "read")

_KEYS_KEY = "framedit:keys"
_TOKEN = re.compile(r"fd-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")


class KeyLimits(BaseModel):
    """What one key may use; None is without limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int | None = Field(default=None, ge=1)
    videos_in_flight: int | None = Field(default=None, ge=1, description="queued or in progress")
    cost_per_day: float | None = Field(default=None, gt=0, description="in the unit of `jobs/cost.py`")


class ApiKey(BaseModel):
    """All that is known of a key but its secret. `id` is the owner of the videos that it asks for."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    scopes: tuple[Scope, ...]
    limits: KeyLimits = KeyLimits()
    created_at: float
    revoked_at: float | None = None


class _StoredKey(ApiKey):
    secret_sha256: str


@dataclass(frozen=True)
class Identified:
    """What a token told: the key it is, None when it is none, and whether any key was ever made."""

    key: ApiKey | None
    keys_exist: bool


class KeyStore:
    """All methods raise `redis.exceptions.RedisError` when Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def create(
        self, name: str = "", scopes: Sequence[Scope] = DEFAULT_SCOPES, limits: KeyLimits | None = None
    ) -> tuple[ApiKey, str]:
        """A new key, and the token that its holder sends, which can never be told again."""
        secret = secrets.token_urlsafe(32)
        key = _StoredKey(
            id=f"key_{secrets.token_hex(6)}",
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            limits=limits or KeyLimits(),
            created_at=time.time(),
            secret_sha256=_digest(secret),
        )
        self._redis.hset(_KEYS_KEY, key.id, key.model_dump_json())
        return _public(key), f"fd-{key.id.removeprefix('key_')}-{secret}"

    def list(self) -> Sequence[ApiKey]:
        """Every key ever made, revoked ones too, oldest first."""
        stored = cast(dict[bytes, bytes], self._redis.hgetall(_KEYS_KEY)).values()
        return sorted((_public(_StoredKey.model_validate_json(raw)) for raw in stored), key=lambda key: key.created_at)

    def revoke(self, key_id: str) -> ApiKey:
        """Take a key back, from the next request on; its videos stay. Revoking it twice is harmless.

        :raises NotFoundError: when there is no such key.
        """
        raw = cast(bytes | None, self._redis.hget(_KEYS_KEY, key_id))
        if raw is None:
            raise NotFoundError(f"there is no API key {key_id!r}; `framedit keys list` shows those there are")
        key = _StoredKey.model_validate_json(raw)
        if key.revoked_at is None:
            key = key.model_copy(update={"revoked_at": time.time(), "secret_sha256": ""})
            self._redis.hset(_KEYS_KEY, key_id, key.model_dump_json())
        return _public(key)

    def disable(self) -> int:
        """Forget all keys, which are revoked already: from then on nobody needs one. Answers how many there were.

        :raises KeysInUseError: when some are not revoked; nothing is forgotten then.
        """

        count = 0

        def forget(pipe: Pipeline) -> None:
            nonlocal count
            stored = cast(dict[bytes, bytes], pipe.hgetall(_KEYS_KEY)).values()
            keys = [_StoredKey.model_validate_json(raw) for raw in stored]
            if in_use := [key.id for key in keys if key.revoked_at is None]:
                raise KeysInUseError(in_use)
            count = len(keys)
            pipe.multi()
            pipe.delete(_KEYS_KEY)

        self._redis.transaction(forget, _KEYS_KEY)  # begins anew where a key is made meanwhile
        return count

    def exist(self) -> bool:
        """Whether a key was ever made: from then on nobody is served without one, until `disable`."""
        return bool(self._redis.exists(_KEYS_KEY))

    def identify(self, token: str | None) -> Identified:
        """Which key a token is."""
        with self._redis.pipeline(transaction=False) as pipe:
            for command in questions(token):
                pipe.execute_command(*command)
            return recognize(token, pipe.execute())


def questions(token: str | None) -> list[tuple[str, ...]]:
    """What Redis is to be asked of a token: commands, whose answers `recognize` takes."""
    return [("EXISTS", _KEYS_KEY), ("HGET", _KEYS_KEY, _parts(token)[0])]


def recognize(token: str | None, answers: Sequence[Any]) -> Identified:
    """Which key a token is."""
    keys_exist, raw = answers
    key = _StoredKey.model_validate_json(raw) if raw is not None else None
    # Compared in constant time, so that the time of an answer does not tell how much of a guess was right.
    if key is None or not hmac.compare_digest(_digest(_parts(token)[1]), key.secret_sha256):
        return Identified(None, bool(keys_exist))
    return Identified(_public(key), True)


def _parts(token: str | None) -> tuple[str, str]:
    """The id and the secret of a token, empty where it is none."""
    parts = _TOKEN.fullmatch(token or "")
    return (f"key_{parts[1]}", parts[2]) if parts else ("", "")


def _digest(secret: str) -> str:
    # A fast hash is right here. Slow ones (bcrypt, argon2) make up for passwords that people choose; this secret is 256
    # random bits, which nobody can guess at any speed, and a slow hash would cost every request.
    return hashlib.sha256(secret.encode()).hexdigest()


def _public(key: _StoredKey) -> ApiKey:
    return ApiKey.model_validate(key.model_dump(exclude={"secret_sha256"}))
