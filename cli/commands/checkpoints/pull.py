"""`framedit pull`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.command import load_settings, one_line_errors, print_json
from cli.options import EPILOG, Json

commands = typer.Typer()


@commands.command("pull", epilog=EPILOG)
def pull_model(
    source: Annotated[str, typer.Argument(help="OWNER/NAME or OWNER/NAME@REVISION: branch, tag or commit.")],
    output: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint folder to create.", show_default="NAME in the folder of the checkpoints"),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Folder for the downloaded files.", show_default="downloads/NAME-COMMIT"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Download the files that match this pattern only. Repeatable.", show_default=False),
    ] = None,
    convert: Annotated[
        bool | None,
        typer.Option(
            "--convert/--no-convert",
            help="Convert the files, and fail if they cannot be converted. --no-convert only downloads.",
            show_default="convert if possible",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option("--dtype", help="Number format of the stored weights.")
    ] = "float32",
    json: Json = False,
) -> None:
    """Download a published model from the Hugging Face hub, and convert it to a checkpoint folder.

    Downloads safetensors, published .pt files, configurations and tokenizers, never code. The revision is resolved to a
    commit. Every file is verified; framedit-manifest.json beside the files holds their SHA-256. If the download stops,
    the same command continues it. HF_ENDPOINT names another hub, HF_TOKEN is the token for private models.
    """
    with one_line_errors():
        from cli.local.hub import split_source
        from cli.local.pull import pull

        repository, revision = split_source(source)
        folder = output or load_settings().checkpoints / repository.partition("/")[2]
        if convert is not False and folder.exists():
            raise FileExistsError(f"{folder} already exists: name another folder, or give --no-convert")
        pulled = pull(repository, revision, to, only or (), _report)
        converted = convert is not False and _convert(pulled.folder, folder, dtype, must=convert is True)
        if json:
            found = {"commit": pulled.model.commit, "folder": str(pulled.folder), "files": pulled.sha256}
            print_json(found | {"checkpoint": str(folder) if converted else None})
        else:
            typer.echo(str(folder if converted else pulled.folder))


def _convert(files: Path, folder: Path, dtype: str, *, must: bool) -> bool:
    """Convert the files if they show how. Returns whether they do."""
    from cli.local.convert import CardOptions, convert, find_source
    from worker.errors import StartupError

    try:
        source = find_source(files)
    except StartupError as error:
        if must:
            raise
        _report(f"not converted: {error.message}")
        return False
    convert(source, folder, CardOptions(), dtype, _report)
    return True


def _report(line: str) -> None:
    typer.echo(line, err=True)
