"""`framedit generate`."""

from pathlib import Path
from typing import Annotated

import typer

from cli.adapters import adapters_field
from cli.command import load_settings, one_line_errors, print_json
from cli.options import (
    EPILOG,
    Adapter,
    Checkpoints,
    ClassLabel,
    CleanCaption,
    Device,
    EditFile,
    ExtendFile,
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
    Speed,
    Steps,
    Strength,
    VideoFile,
)

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def generate(
    prompt: Prompt = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .mp4, .webm, .gif, .webp, or .zip with a PNG for each frame; one frame is a .png.",
        ),
    ] = Path("video.mp4"),
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Name of the model.",
            show_default="the only one that the other options fit, or else FRAMEDIT_DEFAULT_MODEL",
        ),
    ] = None,
    class_label: ClassLabel = None,
    negative_prompt: NegativePrompt = None,
    clean_caption: CleanCaption = None,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    adapter: Adapter = None,
    speed: Speed = None,
    frames: Frames = None,
    fps: Fps = None,
    image: Image = None,
    video: VideoFile = None,
    edit: EditFile = None,
    extend: ExtendFile = None,
    strength: Strength = None,
    quality: Quality = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Generate one video on this machine, without a server."""
    with one_line_errors():
        settings = load_settings(checkpoints=checkpoints, device=device)
        from cli.client.source import Source
        from cli.local.generate import plan_generation, write_video
        from cli.result_file import requested_format

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
            "adapters": adapters_field(adapter),
            "speed": speed,
            "num_frames": frames,
            "fps": fps,
            "strength": strength,
            "output_format": requested_format(output),
            "output_quality": quality,
        }
        source = Source.of(image, video, edit, extend, files_only=True)
        plan = plan_generation(settings, output, fields, source)
        write_video(plan, settings)
        request = plan.request
        if json:
            print_json({"file": str(plan.output), **request.model_dump(mode="json")})
            return
        length = "image" if request.num_frames == 1 else f"{request.num_frames} frames at {request.fps} fps"
        typer.echo(f"{plan.output}  {length}, {request.model}, seed {request.seed}")
