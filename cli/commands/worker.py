"""`framedit worker`."""

from typing import Annotated

import typer

from cli.command import one_line_errors, require_redis, start_process
from cli.options import EPILOG, Checkpoints, DataDir, Device, GpusPerVideo, JsonLogs, RedisUrl
from cli.processes.shutdown_signals import exit_on_signals

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def worker(
    checkpoints: Checkpoints = None,
    data_dir: DataDir = None,
    device: Device = None,
    gpus_per_video: GpusPerVideo = None,
    redis_url: RedisUrl = None,
    burst: Annotated[bool, typer.Option("--burst", help="Exit when the queues are empty.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name of the worker, which must be unique.")] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            "--devices",
            help="Start one worker for each device, or group of devices: all (every GPU), 0,1 (these GPUs) or cpu*2.",
            metavar="LIST",
        ),
    ] = None,
    json: JsonLogs = False,
) -> None:
    """Start a worker, which uses one device, or one worker for each of several. It needs a Redis server (REDIS_URL).

    With --gpus-per-video N, each worker uses N devices for every video.

    On SIGTERM or Ctrl-C the worker finishes videos for up to FRAMEDIT_DRAIN_SECONDS and returns the others to the
    queue. On a second signal it returns all of them at once.
    """
    exit_on_signals(at_once=True)
    with one_line_errors():
        settings = start_process(
            "worker",
            json,
            checkpoints=checkpoints,
            data_dir=data_dir,
            device=device,
            gpus_per_video=gpus_per_video,
            redis_url=redis_url,
        )
        require_redis(settings, "worker")
        if devices is not None:
            if device is not None or burst or name is not None:
                raise typer.BadParameter(
                    "it cannot be combined with --device, --burst or --name", param_hint="--devices"
                )
            from cli.processes.devices import run_devices

            run_devices(settings, devices)
            return
        from worker.main import run_worker

        run_worker(settings, burst=burst, name=name)
