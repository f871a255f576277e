"""`framedit calibrate`."""

from typing import Annotated

import typer

from cli.command import load_settings, one_line_errors, print_json
from cli.options import EPILOG, Checkpoints, Device, Json

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def calibrate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="Sampler to calibrate.", show_default="the model's default")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=10, help="Denoising steps of the exact videos.")] = 50,
    videos: Annotated[int, typer.Option("--videos", min=1, help="Number of videos.")] = 4,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Frames of a video.", show_default="the model's default")
    ] = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Find the speed plans of a model: requests can then ask for `balanced` and `fast`.

    Generates the model's own examples exactly, then with candidate plans and with fewer steps. The best plans go into
    speed_plans.json of the checkpoint folder, those of other samplers stay there. Workers announce them when they
    start.
    """
    with one_line_errors():
        settings = load_settings(checkpoints=checkpoints, device=device)
        from cli.local.calibrate import calibrate_model

        plans = calibrate_model(
            settings, model, sampler, steps, videos, frames, lambda line: typer.echo(line, err=True)
        )
        if json:
            print_json([plan.model_dump() for plan in plans])
            return
        for plan in plans:
            typer.echo(f"{plan.speed}  {plan.sampler}  {plan.rows_share:.0%} of the rows  {plan.psnr_db:.1f} dB")
        if not plans:
            typer.echo("exact only")
