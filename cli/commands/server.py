"""`framedit server`."""

from typing import Annotated

import typer

from cli.command import one_line_errors, require_redis, start_process
from cli.options import EPILOG, Anonymous, DataDir, Host, JsonLogs, Port, RedisUrl, TlsCert, TlsKey
from cli.processes.shutdown_signals import exit_on_signals

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def server(
    port: Port = None,
    host: Host = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    allow_anonymous: Anonymous = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    json: JsonLogs = False,
    fd: Annotated[int | None, typer.Option("--fd", hidden=True)] = None,
) -> None:
    """Start the API without a worker. It needs a Redis server (REDIS_URL)."""
    exit_on_signals(at_once=True)
    with one_line_errors():
        settings = start_process(
            "server",
            json,
            port=port,
            host=host,
            data_dir=data_dir,
            redis_url=redis_url,
            allow_anonymous=allow_anonymous,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
        require_redis(settings, "server")
        from cli.processes.api_server import run_server

        run_server(settings, fd)
