"""`framedit inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from cli.command import one_line_errors, print_json
from cli.options import EPILOG, Json

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def inspect(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder, or adapter folder.")], json: Json = False
) -> None:
    """Print the contents of a checkpoint folder, and whether its weights fit its configuration; or of an adapter."""
    with one_line_errors():
        from models.adapters.inspect import inspect_adapter, is_adapter
        from models.checkpoint.inspect import describe, inspect_checkpoint

        rows = inspect_adapter(folder) if is_adapter(folder) else inspect_checkpoint(folder)
        if json:
            print_json(dict(rows))
        else:
            typer.echo(describe(rows))
