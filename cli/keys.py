"""`framedit keys`: reads and writes the API keys in Redis, so it needs no server, and no key."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import typer
from pydantic import ValidationError
from redis.exceptions import RedisError

from cli.embedded_redis import EmbeddedRedis, running_url
from jobs.connection import connect
from jobs.keys import SCOPES, ApiKey, KeyLimits, KeyStore, Scope
from jobs.settings import Settings
from worker.errors import StartupError


@contextmanager
def key_store(settings: Settings) -> Iterator[KeyStore]:
    """The keys in the Redis server of the settings; else in the database of `framedit serve`, running or not.

    Raises `StartupError` when it does not answer, `EmbeddedRedisError` when it cannot be started.
    """
    with _database(settings) as url:
        try:
            with connect(url, settings.redis_timeout_seconds) as redis:
                yield KeyStore(redis)
        except RedisError as error:
            raise StartupError(f"the database of the keys does not answer: {error}") from error


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


def create(store: KeyStore, name: str, scopes: str, limits: Mapping[str, float | None], as_json: bool) -> None:
    """The token alone goes to stdout, so that a script can take it from there.

    Raises `StartupError` for scopes and limits that there are not.
    """
    try:
        key, token = store.create(name, _scopes(scopes), KeyLimits.model_validate(limits))
    except ValidationError as error:
        fault = error.errors()[0]
        raise StartupError(f"{fault['loc'][0]} is {fault['input']}: {fault['msg']}") from None
    if as_json:
        typer.echo(json.dumps({**key.model_dump(), "key": token}))
        return
    typer.echo(f"{key.id}: {_describe(key)}. This is its key; it is shown only now:", err=True)
    typer.echo(token)


def show(store: KeyStore, as_json: bool) -> None:
    found = store.list()
    if as_json:
        typer.echo(json.dumps([key.model_dump() for key in found]))
    elif not found:
        typer.echo("there are no API keys; `framedit keys create` makes one", err=True)
    for key in found if not as_json else ():
        made = time.strftime("%Y-%m-%d", time.gmtime(key.created_at))
        typer.echo(f"{key.id}  {made}  {key.name or '-':<20}  {_describe(key)}")


def revoke(store: KeyStore, key_id: str, as_json: bool) -> None:
    key = store.revoke(key_id)
    typer.echo(json.dumps(key.model_dump()) if as_json else f"{key.id} ({key.name or 'without a name'}) is revoked")
    if all(other.revoked_at is not None for other in store.list()):
        typer.echo(
            "no key is left, so nobody is served: `framedit keys create` makes one, "
            "`framedit keys disable` lets the server do without",
            err=True,
        )


def disable(store: KeyStore, as_json: bool) -> None:
    """Raises `KeysInUseError` while there is a key that was not revoked."""
    count = store.disable()
    if as_json:
        typer.echo(json.dumps({"forgotten": count}))
        return
    typer.echo(
        f"{count} revoked keys are forgotten: no key is needed any more, and all videos are everybody's who is served"
        if count
        else "there were no API keys"
    )


def _scopes(text: str) -> Sequence[Scope]:
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in SCOPES]:
        raise StartupError(f"scopes has {unknown[0]!r}; there are {', '.join(SCOPES)}, with commas between")
    return [scope for scope in SCOPES if scope in words]


def _describe(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    limits = [f"{value:g} {name.replace('_', ' ')}" for name, value in key.limits if value is not None]
    return ", ".join(["+".join(key.scopes), *limits])
