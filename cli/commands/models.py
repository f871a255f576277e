"""`framedit models`."""

from typing import Annotated, Any

import typer

from cli.command import connected_client, print_json
from cli.options import EPILOG, ApiKey, Json, Server
from cli.table import print_table

commands = typer.Typer()
models = typer.Typer(epilog=EPILOG, invoke_without_command=True)
commands.add_typer(models, name="models")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model.", show_default=False)]


@models.callback()
def list_models(context: typer.Context, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """List the models of a server and the number of workers for each, or load, unload, pin and unpin one."""
    if context.invoked_subcommand is not None:
        return
    with connected_client(server, api_key) as client:
        found = client.models()
        if json:
            print_json(found)
            return
        rows = [
            (
                model["id"],
                str(model["workers_alive"]),
                _memory(model),
                _conditioning(model),
                f"{model['num_frames']} of {model['sizes'][0]}",
            )
            for model in found
        ]
        print_table(("MODEL", "WORKERS", "LOADED", "INPUT", "FRAMES"), rows)


@models.command(epilog=EPILOG)
def load(model: ModelName, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Load a model on every worker that serves it."""
    _command(model, "load", json, server, api_key)


@models.command(epilog=EPILOG)
def unload(model: ModelName, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Unload a model on every worker, once its running videos are denoised. Its next video loads it again."""
    _command(model, "unload", json, server, api_key)


@models.command(epilog=EPILOG)
def pin(model: ModelName, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Load a model on every worker that serves it, and keep it in memory."""
    _command(model, "pin", json, server, api_key)


@models.command(epilog=EPILOG)
def unpin(model: ModelName, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Permit workers to unload a pinned model."""
    _command(model, "unpin", json, server, api_key)


def _command(model: str, action: str, json: bool, server: str | None, api_key: str | None) -> None:
    with connected_client(server, api_key) as client:
        found = client.command_model(model, action)
        if json:
            print_json(found)
        else:
            typer.echo(f"{model}  {action} requested, {found['workers_alive']} workers follow within seconds")


def _memory(model: dict[str, Any]) -> str:
    # Servers of version 0.1 do not report it.
    return str(model.get("workers_loaded", "?")) + (", pinned" if model.get("pinned") else "")


def _conditioning(model: dict[str, Any]) -> str:
    classes = len(model["class_names"] or ())
    return {"text": "prompt", "class": f"one of {classes} classes", "none": "none"}[model["conditioning"]]
