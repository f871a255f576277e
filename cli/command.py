"""Common to all commands: settings, logging, one-line errors, JSON output."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cli.client.api_client import Client
    from jobs.settings import Settings


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print an error that the user can correct as one line on stderr, and exit without a traceback.

    The exit status is the error's `exit_status`, by default 2.
    """
    from jobs.errors import FrameditError

    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except (FrameditError, ValueError, FileExistsError) as error:
        typer.echo(f"framedit: {error}", err=True)
        sys.exit(getattr(error, "exit_status", 2))


def load_settings(**options: Any) -> "Settings":
    """Read the settings; an option that is not None overrides every other source."""
    from jobs.settings import Settings
    from jobs.settings_sources import read_settings

    return read_settings(Settings, options).settings


def start_process(process: str, json_logs: bool, **options: Any) -> "Settings":
    """Read the settings of a long-running process and configure its logging."""
    from cli.logs import configure_logging
    from jobs.settings import Settings
    from jobs.settings_secrets import secrets_of
    from jobs.settings_sources import read_settings

    found = read_settings(Settings, options | ({"log_format": "json"} if json_logs else {}))
    settings = found.settings
    configure_logging(process, settings.log_level, settings.log_format, secrets_of(settings))
    for warning in found.warnings:
        logging.getLogger(__name__).warning("%s", warning)
    return settings


def require_redis(settings: "Settings", process: str) -> None:
    from worker.errors import StartupError

    if settings.redis_url is None:
        raise StartupError(
            f"the {process} needs a Redis server: set REDIS_URL, or use `framedit serve`, which starts one"
        )


@contextmanager
def connected_client(server: str | None, api_key: str | None, **options: Any) -> Iterator["Client"]:
    """A client of the server that the options or the settings name; `options` are the client's."""
    with one_line_errors():
        from cli.client.api_client import Client
        from jobs.settings import ClientSettings
        from jobs.settings_sources import read_settings

        settings = read_settings(ClientSettings, {"server": server, "api_key": api_key}).settings
        token = settings.api_key.get_secret_value() if settings.api_key else None
        with Client(settings.server, token, **options) as client:
            yield client


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
