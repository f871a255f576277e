"""The work of `framedit keys`: it changes API keys in Redis directly, so it needs neither a server nor a key."""

import json
import os
import pwd
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from cli.durations import parse_duration
from cli.processes.embedded_redis import EmbeddedRedis, running_url
from jobs.access.api_keys import SCOPES, ApiKey, KeyLimits, KeyStore
from jobs.access.audit_log import AuditLog
from jobs.access.webhook_secrets import WebhookSecrets
from jobs.connection import connect
from jobs.queue.redis_allow_oom import AllowOomRedis
from jobs.settings import Settings, split_list
from jobs.videos.record import PRIORITIES
from worker.errors import StartupError

Choice = TypeVar("Choice", bound=str)


class AuditedKeyStore(KeyStore):
    """The keys, with an entry in the audit log for each change, by the user of the operating system."""

    def __init__(self, redis: Redis, audit_log: AuditLog | None) -> None:
        super().__init__(redis)
        self._audit_log = audit_log

    def note(self, command: str, key_id: str | None = None) -> None:
        """Append a command to the audit log, if there is one."""
        if self._audit_log is not None:
            self._audit_log.write(command=f"keys {command}", key=key_id, user=_user())

    def create(self, *args: Any, **options: Any) -> tuple[ApiKey, str]:
        key, token = super().create(*args, **options)
        self.note("create", key.id)
        return key, token

    def rotate(self, key_id: str, overlap_seconds: float = 0.0) -> tuple[ApiKey, str]:
        rotated = super().rotate(key_id, overlap_seconds)
        self.note("rotate", key_id)
        return rotated

    def revoke(self, key_id: str) -> ApiKey:
        key = super().revoke(key_id)
        self.note("revoke", key_id)
        return key

    def disable(self) -> int:
        count = super().disable()
        self.note("disable")
        return count


def _user() -> str:
    """Return the user of this process by its number, which unlike the environment cannot be set by the user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@contextmanager
def key_store(settings: Settings) -> Iterator[AuditedKeyStore]:
    """The keys in the Redis server of the settings, else in the database of `framedit serve`, which may be stopped.

    Raises `StartupError` if the database does not answer, `EmbeddedRedisError` if it cannot be started.
    """
    audit_log = AuditLog(settings.audit_log) if settings.audit_log is not None else None
    with redis_of_keys(settings) as redis:
        yield AuditedKeyStore(AllowOomRedis.over(redis), audit_log)  # a key can be revoked while Redis is full


@contextmanager
def redis_of_keys(settings: Settings) -> Iterator[Redis]:
    """The Redis server that holds the keys. Raises as `key_store` does."""
    with _database(settings) as url:
        try:
            with connect(url, settings.redis_timeout_seconds) as redis:
                yield redis
        except RedisError as error:
            raise StartupError(f"the database of the API keys does not answer: {error}") from error


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    folder = settings.data_dir / "redis"
    url = settings.redis_url or running_url(folder)
    if url is not None:
        yield url
        return
    database = EmbeddedRedis(folder)
    try:
        yield database.start()
    finally:
        database.stop()


def create_key(
    store: KeyStore,
    name: str,
    scopes: str,
    limits: Mapping[str, float | None],
    priorities: str,
    expires: str | None,
    as_json: bool,
) -> None:
    """Create a key. Only its token goes to stdout, so that a script can read it.

    Raises `StartupError` for unknown scopes or priorities, invalid limits and durations.
    """
    expires_in_seconds = None if expires is None else parse_duration("--expires", expires)
    allowed = _choices("priorities", priorities, PRIORITIES)
    chosen = _choices("scopes", scopes, SCOPES)
    try:
        key, token = store.create(name, chosen, KeyLimits.model_validate(limits), allowed, expires_in_seconds)
    except ValidationError as error:
        fault = error.errors()[0]
        raise StartupError(f"{fault['loc'][0]} is {fault['input']}: {fault['msg']}") from None
    _print_token(key, token, as_json)


def rotate_key(store: KeyStore, key_id: str, overlap: str, as_json: bool) -> None:
    """Give a key a new secret. Only the new token goes to stdout. Raises `StartupError` for an invalid duration."""
    key, token = store.rotate(key_id, parse_duration("--overlap", overlap))
    _print_token(key, token, as_json)


def _print_token(key: ApiKey, token: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**key.model_dump(), "key": token}))
        return
    typer.echo(f"{key.id}: {_describe(key)}. This is the key; it is not shown again:", err=True)
    typer.echo(token)


def print_keys(store: KeyStore, as_json: bool) -> None:
    found = store.list()
    if as_json:
        typer.echo(json.dumps([key.model_dump() for key in found]))
    elif not found:
        typer.echo("there are no API keys; `framedit keys create` creates one", err=True)
    for key in found if not as_json else ():
        made = time.strftime("%Y-%m-%d", time.gmtime(key.created_at))
        typer.echo(f"{key.id}  {made}  {key.name or '-':<20}  {_describe(key)}")


def revoke_key(store: KeyStore, key_id: str, as_json: bool) -> None:
    key = store.revoke(key_id)
    typer.echo(json.dumps(key.model_dump()) if as_json else f"{key.id} ({key.name or 'without a name'}) is revoked")
    if not any(other.is_active(time.time()) for other in store.list()):
        typer.echo(
            "no active API key is left, so the server refuses all requests: `framedit keys create` creates a key, "
            "`framedit keys disable` makes the server accept requests without one",
            err=True,
        )


def print_webhook_secrets(store: AuditedKeyStore, key_id: str, settings: Settings, as_json: bool = False) -> None:
    """Print the secrets of a key, the current one first. Raises `StartupError` for an unknown key or no secret."""
    if settings.webhook_secret is None:
        raise StartupError("FRAMEDIT_WEBHOOK_SECRET is not set, so the server sends no webhooks: set it here as there")
    if key_id not in {key.id for key in store.list()}:
        raise StartupError(f"there is no API key {key_id!r}; `framedit keys list` shows all keys")
    previous = settings.webhook_secret_previous
    secrets = WebhookSecrets(
        settings.webhook_secret.get_secret_value(), previous.get_secret_value() if previous is not None else None
    )
    shown = list(secrets.shown(key_id))
    store.note("webhook-secret", key_id)
    if as_json:
        typer.echo(json.dumps({"id": key_id, "webhook_secrets": shown}))
        return
    for secret in shown:
        typer.echo(secret)


def disable_keys(store: KeyStore, as_json: bool) -> None:
    """Delete all revoked keys. Raises `KeysInUseError` while any key is still active."""
    count = store.disable()
    if as_json:
        typer.echo(json.dumps({"forgotten": count}))
        return
    typer.echo(
        f"{count} revoked keys deleted: API keys are no longer required, and every client can see all videos"
        if count
        else "there were no API keys"
    )


def _choices(option: str, text: str, allowed: Sequence[Choice]) -> Sequence[Choice]:
    words = split_list(text)
    if unknown := [word for word in words if word not in allowed]:
        raise StartupError(f"{option} contains {unknown[0]!r}; allowed are {', '.join(allowed)}, separated by commas")
    if not words:
        raise StartupError(f"{option} is empty; allowed are {', '.join(allowed)}, separated by commas")
    return [choice for choice in allowed if choice in words]


def _describe(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.has_expired(time.time()):
        return "expired"
    limits = [f"{value:g} {name.replace('_', ' ')}" for name, value in key.limits if value is not None]
    if key.priorities != PRIORITIES:
        limits.append(f"priorities {'+'.join(key.priorities)}")
    if key.expires_at is not None:
        limits.append(f"until {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(key.expires_at))}")
    return ", ".join(["+".join(key.scopes), *limits])
