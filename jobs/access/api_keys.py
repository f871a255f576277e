"""API keys: their scopes, limits, expiry and rotation.

A key is `fd-<id>-<secret>` and is shown once, when it is created. Redis keeps the rest of it (`ApiKey`) and the SHA-256
of the secret in the hash `framedit:keys`. A revoked key stays there without its hash, so a server that ever had keys
still requires one after the last is revoked. Only `disable` ends that.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis
from redis.client import Pipeline

from jobs import redis_keys
from jobs.errors import KeysInUseError, NotFoundError, RevokedKeyError
from jobs.videos.record import PRIORITIES, Priority

Scope = Literal["create", "read", "delete", "admin"]
SCOPES: tuple[Scope, ...] = ("create", "read", "delete", "admin")
DEFAULT_SCOPES: tuple[Scope, ...] = ("create", "read", "delete")

_TOKEN = re.compile(r"fd-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
# Of a stored key. In version 1, the scope create included delete.
_VERSION = 2


class KeyLimits(BaseModel):
    """The limits of one key; None means no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int | None = Field(default=None, ge=1)
    videos_in_flight: int | None = Field(default=None, ge=1, description="queued or in progress")
    videos_kept: int | None = Field(default=None, ge=1, description="until they are deleted or expire")
    cost_per_day: float | None = Field(default=None, gt=0, description="in the unit of `jobs/admission/cost.py`")


class ApiKey(BaseModel):
    """A key without its secret. Times are Unix seconds.

    Attributes:
        id: The owner of the videos that the key creates.
        priorities: The priorities that its videos may have.
        expires_at: When the key stops being valid, None for never.
        previous_valid_until: After a rotation, until when the secret before it is valid.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    scopes: tuple[Scope, ...]
    limits: KeyLimits = KeyLimits()
    priorities: tuple[Priority, ...] = PRIORITIES
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    previous_valid_until: float | None = None

    def has_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    def is_active(self, now: float) -> bool:
        return self.revoked_at is None and not self.has_expired(now)


class _StoredKey(ApiKey):
    secret_sha256: str
    previous_sha256: str = ""
    version: int = 1

    def accepts(self, secret: str, now: float) -> bool:
        """Return whether the secret belongs to this key, compared in constant time."""
        digest = _digest(secret)
        is_current = hmac.compare_digest(digest, self.secret_sha256)
        is_previous = hmac.compare_digest(digest, self.previous_sha256)
        return is_current or (is_previous and now < (self.previous_valid_until or 0.0))


@dataclass(frozen=True)
class Identified:
    """The key that a token belongs to.

    Attributes:
        key: None for an unknown, revoked or expired key.
        keys_exist: Whether a key was ever created.
        has_expired: Whether the token belongs to a key that has expired.
    """

    key: ApiKey | None
    keys_exist: bool
    has_expired: bool = False


class KeyStore:
    """The keys in Redis. All methods raise `redis.exceptions.RedisError` when Redis does not answer."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock

    def create(
        self,
        name: str = "",
        scopes: Sequence[Scope] = DEFAULT_SCOPES,
        limits: KeyLimits | None = None,
        priorities: Sequence[Priority] = PRIORITIES,
        expires_in_seconds: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key. Returns it with the token for its owner, which is not stored."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        key = _StoredKey(
            id=f"key_{secrets.token_hex(6)}",
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            limits=limits or KeyLimits(),
            priorities=tuple(priority for priority in PRIORITIES if priority in priorities),
            created_at=now,
            expires_at=None if expires_in_seconds is None else now + expires_in_seconds,
            secret_sha256=_digest(secret),
            version=_VERSION,
        )
        self._redis.hset(redis_keys.API_KEYS, key.id, key.model_dump_json())
        return _public(key), _token(key, secret)

    def list(self) -> Sequence[ApiKey]:
        """Return all keys, revoked ones included, oldest first."""
        stored = cast(dict[bytes, bytes], self._redis.hgetall(redis_keys.API_KEYS)).values()
        return sorted((_public(_load(raw)) for raw in stored), key=lambda key: key.created_at)

    def rotate(self, key_id: str, overlap_seconds: float = 0.0) -> tuple[ApiKey, str]:
        """Give a key a new secret; the present one stays valid for `overlap_seconds`. Returns key and new token.

        :raises NotFoundError: when there is no such key.
        :raises RevokedKeyError: when the key is revoked.
        """
        secret = secrets.token_urlsafe(32)

        def change(key: _StoredKey) -> _StoredKey:
            if key.revoked_at is not None:
                raise RevokedKeyError(key_id)
            previous = {"previous_sha256": key.secret_sha256, "previous_valid_until": self._clock() + overlap_seconds}
            return key.model_copy(update={"secret_sha256": _digest(secret), **previous})

        key = self._update(key_id, change)
        return _public(key), _token(key, secret)

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key, effective from the next request. Its videos stay. Repeating it is harmless.

        :raises NotFoundError: when there is no such key.
        """

        def change(key: _StoredKey) -> _StoredKey:
            if key.revoked_at is not None:
                return key
            no_secrets = {"secret_sha256": "", "previous_sha256": "", "previous_valid_until": None}
            return key.model_copy(update={"revoked_at": self._clock(), **no_secrets})

        return _public(self._update(key_id, change))

    def disable(self) -> int:
        """Delete all keys, so that none is required any more. Returns their number.

        :raises KeysInUseError: when some are neither revoked nor expired; nothing is deleted then.
        """
        count = 0

        def delete(pipe: Pipeline) -> None:
            nonlocal count
            stored = cast(dict[bytes, bytes], pipe.hgetall(redis_keys.API_KEYS)).values()
            keys = [_load(raw) for raw in stored]
            if in_use := [key.id for key in keys if key.is_active(self._clock())]:
                raise KeysInUseError(in_use)
            count = len(keys)
            pipe.multi()
            pipe.delete(redis_keys.API_KEYS)

        self._redis.transaction(delete, redis_keys.API_KEYS)  # repeated if a key is created meanwhile
        return count

    def exist(self) -> bool:
        """Return whether a key was ever created: from then on, every request needs one, until `disable`."""
        return bool(self._redis.exists(redis_keys.API_KEYS))

    def identify(self, token: str | None) -> Identified:
        """Return the key that a token belongs to."""
        with self._redis.pipeline(transaction=False) as pipe:
            for command in questions(token):
                pipe.execute_command(*command)
            return recognize(token, pipe.execute(), self._clock())

    def _update(self, key_id: str, change: Callable[[_StoredKey], _StoredKey]) -> _StoredKey:
        """Change a stored key; of concurrent changes none is lost."""
        changed: list[_StoredKey] = []

        def write(pipe: Pipeline) -> None:
            raw = cast(bytes | None, pipe.hget(redis_keys.API_KEYS, key_id))
            if raw is None:
                raise NotFoundError(f"there is no API key {key_id!r}; `framedit keys list` shows all keys")
            changed[:] = [change(_load(raw))]
            pipe.multi()
            pipe.hset(redis_keys.API_KEYS, key_id, changed[0].model_dump_json())

        self._redis.transaction(write, redis_keys.API_KEYS)
        return changed[0]


def questions(token: str | None) -> list[tuple[str, ...]]:
    """Return the Redis commands that identify a token; `recognize` takes the replies."""
    return [("EXISTS", redis_keys.API_KEYS), ("HGET", redis_keys.API_KEYS, _parts(token)[0])]


def recognize(token: str | None, replies: Sequence[Any], now: float) -> Identified:
    """Return the key that a token belongs to."""
    keys_exist, raw = replies
    key = _load(raw) if raw is not None else None
    if key is None or not key.accepts(_parts(token)[1], now):
        return Identified(None, bool(keys_exist))
    if key.has_expired(now):
        return Identified(None, True, has_expired=True)
    return Identified(_public(key), True)


def _load(raw: bytes) -> _StoredKey:
    key = _StoredKey.model_validate_json(raw)
    if key.version >= _VERSION:
        return key
    scopes = (*key.scopes, "delete") if "create" in key.scopes else key.scopes
    return key.model_copy(update={"scopes": tuple(scope for scope in SCOPES if scope in scopes), "version": _VERSION})


def _token(key: ApiKey, secret: str) -> str:
    return f"fd-{key.id.removeprefix('key_')}-{secret}"


def _parts(token: str | None) -> tuple[str, str]:
    """Return the id and the secret of a token, empty for an invalid one."""
    parts = _TOKEN.fullmatch(token or "")
    return (f"key_{parts[1]}", parts[2]) if parts else ("", "")


def _digest(secret: str) -> str:
    # A fast hash suffices: slow ones (bcrypt, argon2) protect passwords that people choose. This secret has 256 random
    # bits, and every request would pay for a slow hash.
    return hashlib.sha256(secret.encode()).hexdigest()


def _public(key: _StoredKey) -> ApiKey:
    return ApiKey.model_validate(key.model_dump(exclude={"secret_sha256", "previous_sha256", "version"}))
