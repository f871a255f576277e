"""`framedit config`."""

import typer

from cli.command import one_line_errors, print_json
from cli.options import EPILOG, Json

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def config(json: Json = False) -> None:
    """Print every setting, its value and the source of the value. Secrets are hidden.

    The environment overrides files that `<NAME>_FILE` variables name, those override the file .env in the current
    folder, and .env overrides the defaults.
    """
    with one_line_errors():
        from cli.local.settings_table import as_dict, as_table
        from jobs.settings import ClientSettings, Settings
        from jobs.settings_sources import read_settings

        found = read_settings(Settings, {})
        parts = (found, read_settings(ClientSettings, {}))
        for warning in found.warnings:
            typer.echo(f"framedit: {warning}", err=True)
        if json:
            print_json(as_dict(*parts))
        else:
            typer.echo(as_table(*parts))
