"""`framedit serve`."""

import typer

from cli.command import one_line_errors, start_process
from cli.options import (
    EPILOG,
    Anonymous,
    Checkpoints,
    DataDir,
    Device,
    GpusPerVideo,
    Host,
    JsonLogs,
    Port,
    RedisUrl,
    TlsCert,
    TlsKey,
)
from cli.processes.shutdown_signals import exit_on_signals

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def serve(
    port: Port = None,
    host: Host = None,
    checkpoints: Checkpoints = None,
    data_dir: DataDir = None,
    device: Device = None,
    gpus_per_video: GpusPerVideo = None,
    redis_url: RedisUrl = None,
    allow_anonymous: Anonymous = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    json: JsonLogs = False,
) -> None:
    """Start the API, one worker and, without REDIS_URL, a database on this machine.

    Queued and finished videos survive a restart. Ctrl-C stops all processes; a second Ctrl-C kills them.
    """
    exit_on_signals()
    with one_line_errors():
        settings = start_process(
            "serve",
            json,
            port=port,
            host=host,
            checkpoints=checkpoints,
            data_dir=data_dir,
            device=device,
            gpus_per_video=gpus_per_video,
            redis_url=redis_url,
            allow_anonymous=allow_anonymous,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
        from cli.processes.serve import serve

        serve(settings, json)
