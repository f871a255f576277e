"""`framedit submit`, `fetch`, `list`, `cancel`, `delete`: videos of a server."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.adapters import adapters_field
from cli.command import connected_client, print_json
from cli.options import (
    EPILOG,
    Adapter,
    ApiKey,
    ClassLabel,
    CleanCaption,
    Edit,
    Enhance,
    Extend,
    Fps,
    Frames,
    Guidance,
    Image,
    Json,
    NegativePrompt,
    Prompt,
    Quality,
    Sampler,
    Seed,
    Server,
    Speed,
    Steps,
    Strength,
    Video,
)
from cli.table import print_table

commands = typer.Typer()

# A row waits for a busy server as long as others are in progress.
_TRIES_OF_A_ROW = 60

VideoIds = Annotated[list[str], typer.Argument(metavar="VIDEO_ID...", help="Ids of videos.")]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="File to write: .mp4, .webm, .gif, .webp, or .zip with a PNG for each frame; one frame is a .png. "
        "Several videos get numbered names.",
    ),
]


@commands.command(epilog=EPILOG)
def submit(
    prompt: Prompt = None,
    output: Output = Path("video.mp4"),
    model: Annotated[
        str | None, typer.Option("--model", help="Name of the model.", show_default="the server's only one")
    ] = None,
    class_label: ClassLabel = None,
    negative_prompt: NegativePrompt = None,
    enhance: Enhance = False,
    clean_caption: CleanCaption = None,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    adapter: Adapter = None,
    speed: Speed = None,
    frames: Frames = None,
    fps: Fps = None,
    quality: Quality = None,
    image: Image = None,
    video: Video = None,
    edit: Edit = None,
    extend: Extend = None,
    strength: Strength = None,
    priority: Annotated[
        Literal["high", "normal", "low"] | None, typer.Option("--priority", show_default="normal")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="Request a video for each row: JSON objects (.jsonl), a table with a head (.csv), or a prompt in each "
            "line. Other options are defaults of the rows. Files are numbered by row. The same command resumes.",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=64, help="Number of rows of --file at a time.")
    ] = 8,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=10, help="Number of videos, with consecutive seeds.")
    ] = 1,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the ids and exit; `framedit fetch` downloads the videos.")
    ] = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Request a video from a server, show its progress, and download it. Ctrl-C does not cancel the video.

    Exit status 1: the video failed, or the server is unreachable; 2: the server refused the request.
    """
    fields = {
        "prompt": prompt,
        "model": model,
        "class_label": class_label,
        "negative_prompt": negative_prompt,
        "clean_caption": clean_caption,
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
        "speed": speed,
        "num_frames": frames,
        "fps": fps,
        "strength": strength,
        "priority": priority,
        "n": count if count > 1 else None,
        "output_quality": quality,
        "enhance_prompt": enhance or None,
    }
    with connected_client(server, api_key, **({"tries": _TRIES_OF_A_ROW} if file else {})) as client:
        fields["adapters"] = adapters_field(adapter)
        from cli.client.download import check_output, download_videos
        from cli.client.source import Source
        from cli.result_file import requested_format
        from jobs.errors import InvalidRequestError

        source = Source.of(image, video, edit, extend)
        fields["output_format"] = requested_format(output) or ("mp4" if edit or extend else None)
        given = {name: value for name, value in fields.items() if value is not None}
        if file is not None:
            from cli.batch.submit_file import submit_file

            if source or prompt or count > 1:
                raise InvalidRequestError(
                    "--file takes no prompt, --count, --image, --video, --edit or --extend; write prompts into its rows"
                )
            check_output(output)
            submit_file(client, file, given, output, concurrency, detach, json)
            return
        if not detach:
            check_output(output)
        videos = client.create(given, source)
        if not detach:
            download_videos(client, [video["id"] for video in videos], output, json)
        elif json:
            print_json(videos)
        else:
            typer.echo("\n".join(video["id"] for video in videos))


@commands.command(epilog=EPILOG)
def fetch(
    video_ids: VideoIds,
    output: Output = Path("video.mp4"),
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Wait for videos that were requested before, and download them."""
    with connected_client(server, api_key) as client:
        from cli.client.download import check_output, download_videos

        check_output(output)
        download_videos(client, video_ids, output, json)


@commands.command("list", epilog=EPILOG)
def list_videos(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of videos.")] = 20,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """List the videos of a server, newest first."""
    with connected_client(server, api_key) as client:
        videos = client.videos(limit)
        if json:
            print_json(videos)
            return
        from cli.client.follow import describe_state

        rows = [(video["id"], video["model"], describe_state(video), _content(video)) for video in videos]
        print_table(("ID", "MODEL", "STATUS", "CONTENT"), rows)


@commands.command(epilog=EPILOG)
def cancel(video_ids: VideoIds, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Cancel videos. Their records stay."""
    with connected_client(server, api_key) as client:
        videos = [client.cancel(video_id) for video_id in video_ids]
        if json:
            print_json(videos)
        else:
            typer.echo("\n".join(f"{video['id']}  {_outcome(video)}" for video in videos))


@commands.command(epilog=EPILOG)
def delete(video_ids: VideoIds, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Delete videos, their records and files."""
    with connected_client(server, api_key) as client:
        answers = [client.delete(video_id) for video_id in video_ids]
        if json:
            print_json(answers)
        else:
            typer.echo("\n".join(f"{answer['id']}  deleted" for answer in answers))


def _content(video: dict[str, Any]) -> str:
    return str(video["prompt"] or video["class_name"] or "")


def _outcome(video: dict[str, Any]) -> str:
    return str(video["error"]["code"] if video["error"] else video["status"])
