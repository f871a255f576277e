"""`framedit health`."""

from typing import Annotated, Literal

import typer

from cli.command import load_settings, one_line_errors, print_json, require_redis
from cli.options import EPILOG, Json, RedisUrl

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def health(
    process: Annotated[Literal["server", "worker"], typer.Argument(help="Process to check.")],
    json: Json = False,
    redis_url: RedisUrl = None,
) -> None:
    """Check the server or the worker of this machine, for container health checks.

    Exit status 0: it is healthy; 1: it is not, and the reason is printed.
    """
    with one_line_errors():
        from cli.local.health import UnhealthyError, check_server, check_worker

        settings = load_settings(redis_url=redis_url)
        try:
            if process == "server":
                check_server(settings)
            else:
                require_redis(settings, "worker")
                check_worker(settings)
        except UnhealthyError as error:
            if json:
                print_json({"process": process, "status": "unwell", "reason": error.message})
            raise
        if json:
            print_json({"process": process, "status": "ok"})
