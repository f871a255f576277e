"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EPILOG = (
    "Every setting is also an environment variable FRAMEDIT_<NAME>; `framedit config` lists them. "
    "Exit status: 0 success, 1 failure, 2 wrong usage or invalid configuration, 130 interrupted with Ctrl-C."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonLogs = Annotated[bool, typer.Option("--json", help="Print output and logs as JSON, one object per line.")]

Checkpoints = Annotated[
    Path | None,
    typer.Option("--checkpoints", help="Folder of checkpoint folders, or one of them.", show_default="checkpoints"),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the database and the videos.", show_default="data")
]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: any.", show_default="8000"),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", show_default="auto")]
GpusPerVideo = Annotated[
    int | None,
    typer.Option("--gpus-per-video", min=1, help="Number of GPUs that share the passes of a worker.", show_default="1"),
]
Anonymous = Annotated[
    bool | None,
    typer.Option(
        "--allow-anonymous",
        help="Accept requests from the network without an API key, as long as no API key exists.",
        show_default=False,
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option("--tls-cert", help="PEM file with the certificate chain: serve HTTPS.", show_default=False),
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", help="PEM file with the private key of the certificate.", show_default=False)
]
RedisUrl = Annotated[
    str | None, typer.Option("--redis-url", help="redis://host:port/0 or unix:///path.", show_default="$REDIS_URL")
]

Server = Annotated[str | None, typer.Option("--server", help="URL of the server.", show_default="$FRAMEDIT_SERVER")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", help="API key. Other users can see it; the variable is safer.", show_default="$FRAMEDIT_API_KEY"
    ),
]

Prompt = Annotated[str | None, typer.Argument(help="Description of the video, for text models.", show_default=False)]
ClassLabel = Annotated[str | None, typer.Option("--class", help="Class, by name or number, for class models.")]
NegativePrompt = Annotated[
    str | None, typer.Option("--negative-prompt", help="Description of what the video must not show.")
]
CleanCaption = Annotated[
    bool | None,
    typer.Option(
        "--clean-caption/--no-clean-caption",
        help="Clean the prompts of HTML, URLs and odd punctuation, for text models.",
        show_default="the model's default",
    ),
]
Image = Annotated[
    str | None,
    typer.Option("--image", metavar="FILE", help="Image that is the first frame: a PNG, JPEG, WebP or GIF file."),
]
Video = Annotated[
    str | None,
    typer.Option("--video", metavar="FILE|ID", help="Video whose first frames the new video has: a file, or an id."),
]
Edit = Annotated[
    str | None,
    typer.Option("--edit", metavar="FILE|ID", help="Video to change: an MP4, WebM or GIF file, or the id of a video."),
]
Extend = Annotated[
    str | None,
    typer.Option("--extend", metavar="FILE|ID", help="Video to continue: a file or an id. --frames counts new frames."),
]
VideoFile = Annotated[
    str | None, typer.Option("--video", metavar="FILE", help="Video whose first frames the new video has.")
]
EditFile = Annotated[
    str | None, typer.Option("--edit", metavar="FILE", help="Video to change: an MP4, WebM or GIF file.")
]
ExtendFile = Annotated[
    str | None, typer.Option("--extend", metavar="FILE", help="Video to continue. --frames counts new frames.")
]
Strength = Annotated[
    float | None,
    typer.Option("--strength", help="How much --edit may change, above 0 and at most 1.", show_default="0.6"),
]
Enhance = Annotated[
    bool, typer.Option("--enhance", help="Let the server's language model rewrite the prompt, where it has one.")
]
Quality = Annotated[
    Literal["low", "medium", "high", "maximum"] | None,
    typer.Option("--quality", help="Quality of the file; PNG is lossless.", show_default="high"),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Random seed.", show_default="random")]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Number of denoising steps.", show_default="the model's default")
]
Guidance = Annotated[
    float | None,
    typer.Option("--guidance", help="Guidance scale; 1: no guidance.", show_default="the model's default"),
]
Adapter = Annotated[
    list[str] | None,
    typer.Option("--adapter", metavar="NAME[:SCALE]", help="Adapter (LoRA) of the model; up to 4 times."),
]
Sampler = Annotated[
    str | None, typer.Option("--sampler", help="Name of the sampler.", show_default="the model's default")
]
Speed = Annotated[
    Literal["exact", "balanced", "fast"] | None,
    typer.Option("--speed", help="Compute fewer rows, if the model has been calibrated for it.", show_default="exact"),
]
Frames = Annotated[
    int | None,
    typer.Option("--frames", help="Number of frames; 1: an image (PNG).", show_default="the model's default"),
]
Fps = Annotated[int | None, typer.Option("--fps", help="Frames per second.", show_default="the model's default")]
