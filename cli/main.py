"""The `framedit` command."""

from typing import Annotated

import typer

from cli.commands import bench, config, generate, health, keys, models, serve, server, videos, worker
from cli.commands.checkpoints import calibrate, convert, inspect, pull
from cli.options import EPILOG

app = typer.Typer(
    name="framedit",
    help="An inference server that turns prompts and class labels into video with FrameDiT models.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    serve,
    server,
    worker,
    keys,
    generate,
    pull,
    convert,
    calibrate,
    inspect,
    config,
    health,
    videos,
    models,
    bench,
):
    app.add_typer(module.commands)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"framedit {version('framedit-server')}")
    except PackageNotFoundError:
        typer.echo("framedit (a source tree that is not installed)")
    raise typer.Exit


@app.callback()
def framedit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command that the arguments name."""
    app()


if __name__ == "__main__":
    main()
