"""`framedit keys`: API keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.command import load_settings, one_line_errors, print_json
from cli.options import EPILOG, DataDir, Json, RedisUrl
from cli.table import print_table

if TYPE_CHECKING:
    from jobs.access.api_keys import KeyStore

commands = typer.Typer()
keys = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True, epilog=EPILOG)
commands.add_typer(keys, name="keys")


@keys.command(epilog=EPILOG)
def create(
    name: Annotated[str, typer.Option("--name", help="Name of the owner, shown in the list.")] = "",
    scopes: Annotated[
        str,
        typer.Option(
            "--scopes",
            help="Comma-separated permissions: create, read, delete, admin (everything, for all owners).",
        ),
    ] = "create,read,delete",
    priorities: Annotated[
        str, typer.Option("--priorities", help="Comma-separated priorities that its videos may have.")
    ] = "high,normal,low",
    expires: Annotated[
        str | None, typer.Option("--expires", help="How long the key is valid: 90d, 12h, 30m.", show_default="forever")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, help="Rate limit.", show_default="no limit")
    ] = None,
    videos_in_flight: Annotated[
        int | None,
        typer.Option("--videos-in-flight", min=1, help="Maximum number of unfinished videos.", show_default="no limit"),
    ] = None,
    videos_kept: Annotated[
        int | None,
        typer.Option(
            "--videos-kept", min=1, help="Maximum number of stored videos.", show_default="the server's limit"
        ),
    ] = None,
    cost_per_day: Annotated[
        float | None,
        typer.Option(
            "--cost-per-day", help="Quota in steps x rows x tokens; guidance doubles the rows.", show_default="no limit"
        ),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Create an API key and print it once; only its hash is stored.

    As soon as one key exists, the server refuses requests without a key.
    """
    with _key_store(data_dir, redis_url) as store:
        from cli.local.api_keys import create_key

        limits = {
            "requests_per_minute": requests_per_minute,
            "videos_in_flight": videos_in_flight,
            "videos_kept": videos_kept,
            "cost_per_day": cost_per_day,
        }
        create_key(store, name, scopes, limits, priorities, expires, as_json)


@keys.command("list", epilog=EPILOG)
def list_keys(as_json: Json = False, data_dir: DataDir = None, redis_url: RedisUrl = None) -> None:
    """List all API keys, revoked ones included, without their secrets."""
    with _key_store(data_dir, redis_url) as store:
        from cli.local.api_keys import print_keys

        print_keys(store, as_json)


@keys.command(epilog=EPILOG)
def rotate(
    key_id: Annotated[str, typer.Argument(help="Id of the key (key_...), as `framedit keys list` prints it.")],
    overlap: Annotated[
        str, typer.Option("--overlap", help="How long the present secret stays valid: 24h, 30m, 0s.")
    ] = "24h",
    as_json: Json = False,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Give an API key a new secret and print the new key once. Id, limits and videos stay.

    The present secret stays valid during the overlap, so that you can replace it everywhere.
    """
    with _key_store(data_dir, redis_url) as store:
        from cli.local.api_keys import rotate_key

        rotate_key(store, key_id, overlap, as_json)


@keys.command(epilog=EPILOG)
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key (key_...), as `framedit keys list` prints it.")],
    as_json: Json = False,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Revoke an API key, effective from the next request. Its videos stay; admin keys can still access them."""
    with _key_store(data_dir, redis_url) as store:
        from cli.local.api_keys import revoke_key

        revoke_key(store, key_id, as_json)


@keys.command(epilog=EPILOG)
def usage(
    key_id: Annotated[str | None, typer.Argument(help="Id of a key.", show_default="all keys")] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=100, help="Number of days, including today (UTC).")] = 30,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Show the accepted videos and their cost, by day and API key."""
    with one_line_errors():
        from cli.local.api_keys import redis_of_keys
        from jobs.access.usage import read_usage, usage_csv

        with redis_of_keys(load_settings(data_dir=data_dir, redis_url=redis_url)) as redis:
            rows = read_usage(redis, days, key_id)
        if as_csv:
            typer.echo(usage_csv(rows), nl=False)
        elif as_json:
            print_json([row.model_dump() for row in rows])
        else:
            print_table(
                ("DATE", "KEY", "VIDEOS", "COST"), [(row.date, row.key, str(row.videos), str(row.cost)) for row in rows]
            )


@keys.command("webhook-secret", epilog=EPILOG)
def webhook_secret(
    key_id: Annotated[str, typer.Argument(help="Id of the key (key_...), as `framedit keys list` prints it.")],
    as_json: Json = False,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Print the secret that signs the webhooks of an API key, for its receivers.

    While FRAMEDIT_WEBHOOK_SECRET_PREVIOUS is set, the secret before the rotation follows on a second line.
    """
    with one_line_errors():
        from cli.local.api_keys import key_store, print_webhook_secrets

        settings = load_settings(data_dir=data_dir, redis_url=redis_url)
        with key_store(settings) as store:
            print_webhook_secrets(store, key_id, settings, as_json)


@keys.command(epilog=EPILOG)
def disable(as_json: Json = False, data_dir: DataDir = None, redis_url: RedisUrl = None) -> None:
    """Stop requiring API keys. It deletes revoked keys, and refuses to run while any key is still active.

    The server then accepts requests from this machine, and from the network if FRAMEDIT_ALLOW_ANONYMOUS is true.
    Every client can see the videos of all former keys.
    """
    with _key_store(data_dir, redis_url) as store:
        from cli.local.api_keys import disable_keys

        disable_keys(store, as_json)


@contextmanager
def _key_store(data_dir: Path | None, redis_url: str | None) -> Iterator["KeyStore"]:
    with one_line_errors():
        from cli.local.api_keys import key_store

        with key_store(load_settings(data_dir=data_dir, redis_url=redis_url)) as store:
            yield store
