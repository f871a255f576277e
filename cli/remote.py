"""The commands that ask a server: `submit`, `fetch`, `list`, `models`, `cancel`, `delete`."""

import json as json_module
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.command import EPILOG, Json, errors_in_one_line

if TYPE_CHECKING:
    from cli.client import Client

Server = Annotated[str | None, typer.Option("--server", help="The server to ask.", show_default="$FRAMEDIT_SERVER")]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", help="Better in the environment.", show_default="$FRAMEDIT_API_KEY")
]
VideoIds = Annotated[list[str], typer.Argument(metavar="VIDEO_ID...", help="Ids of videos.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The MP4 to write; of several, numbered ones.")]


def submit(
    prompt: Annotated[str | None, typer.Argument(help="What to show; for text models.", show_default=False)] = None,
    output: Output = Path("video.mp4"),
    model: Annotated[str | None, typer.Option("--model", show_default="the only one")] = None,
    class_label: Annotated[str | None, typer.Option("--class", help="A class, by name or number.")] = None,
    negative_prompt: Annotated[str | None, typer.Option("--negative-prompt", help="What not to show.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", show_default="random")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.", show_default="the model's")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale; 1 is none.")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", show_default="the model's")] = None,
    frames: Annotated[int | None, typer.Option("--frames", show_default="the model's")] = None,
    fps: Annotated[int | None, typer.Option("--fps", show_default="the model's")] = None,
    priority: Annotated[Literal["high", "normal", "low"] | None, typer.Option("--priority")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10, help="Videos, with seeds counting up.")] = 1,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait: print the ids, for `framedit fetch`.")] = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Ask a server for a video, follow its making, and download it. With Ctrl-C its making goes on.

    Status 1: the video failed, or the server cannot be reached; 2: the server refused the request.
    """
    fields = {
        "prompt": prompt,
        "model": model,
        "class_label": class_label,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
        "num_frames": frames,
        "fps": fps,
        "priority": priority,
        "n": count if count > 1 else None,
    }
    with _asking(server, api_key) as client:
        from cli.deliver import check_output, deliver

        if not detach:
            check_output(output)
        videos = client.create({name: value for name, value in fields.items() if value is not None})
        if not detach:
            deliver(client, [video["id"] for video in videos], output, json)
        elif json:
            _print_json(videos)
        else:
            typer.echo("\n".join(video["id"] for video in videos))


def fetch(
    video_ids: VideoIds,
    output: Output = Path("video.mp4"),
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Follow videos that were asked for before, and download them."""
    with _asking(server, api_key) as client:
        from cli.deliver import check_output, deliver

        check_output(output)
        deliver(client, video_ids, output, json)


def list_videos(
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 20,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """List a server's videos, newest first."""
    with _asking(server, api_key) as client:
        videos = client.videos(limit)
        if json:
            _print_json(videos)
            return
        from cli.follow import in_words

        rows = [(video["id"], video["model"], in_words(video), _subject(video)) for video in videos]
        _print_table(("ID", "MODEL", "STATUS", "SHOWS"), rows)


def models(json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """List a server's models and how many workers serve each."""
    with _asking(server, api_key) as client:
        found = client.models()
        if json:
            _print_json(found)
            return
        rows = [
            (model["id"], str(model["workers_alive"]), _takes(model), f"{model['num_frames']} of {model['sizes'][0]}")
            for model in found
        ]
        _print_table(("MODEL", "WORKERS", "TAKES", "FRAMES"), rows)


def cancel(video_ids: VideoIds, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Stop the making of videos; their records stay."""
    with _asking(server, api_key) as client:
        videos = [client.cancel(video_id) for video_id in video_ids]
        if json:
            _print_json(videos)
        else:
            typer.echo("\n".join(f"{video['id']}  {_ending(video)}" for video in videos))


def delete(video_ids: VideoIds, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Remove videos and their files."""
    with _asking(server, api_key) as client:
        answers = [client.delete(video_id) for video_id in video_ids]
        if json:
            _print_json(answers)
        else:
            typer.echo("\n".join(f"{answer['id']}  deleted" for answer in answers))


def add_to(app: typer.Typer) -> None:
    commands: dict[str, Callable[..., None]] = {
        "submit": submit,
        "fetch": fetch,
        "list": list_videos,
        "models": models,
        "cancel": cancel,
        "delete": delete,
    }
    for name, command in commands.items():
        app.command(name, epilog=EPILOG)(command)


@contextmanager
def _asking(server: str | None, api_key: str | None) -> Iterator["Client"]:
    with errors_in_one_line():
        from cli.client import Client
        from jobs.effective import read_settings
        from jobs.settings import ClientSettings

        settings = read_settings(ClientSettings, {"server": server, "api_key": api_key}).settings
        with Client(settings.server, settings.api_key) as client:
            yield client


def _print_json(value: Any) -> None:
    typer.echo(json_module.dumps(value, indent=2, ensure_ascii=False))


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _subject(video: dict[str, Any]) -> str:
    return str(video["prompt"] or video["class_name"] or "")


def _takes(model: dict[str, Any]) -> str:
    classes = len(model["class_names"] or ())
    return {"text": "a prompt", "class": f"one of {classes} classes", "none": "nothing"}[model["conditioning"]]


def _ending(video: dict[str, Any]) -> str:
    return str(video["error"]["code"] if video["error"] else video["status"])
