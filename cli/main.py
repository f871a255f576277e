"""The commands. What they need is imported when they run, so that help comes at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import remote
from cli.command import EPILOG as _EPILOG
from cli.command import Json
from cli.command import errors_in_one_line as _errors_in_one_line
from cli.stopping import end_on_signals

if TYPE_CHECKING:
    from jobs.settings import Settings

app = typer.Typer(
    name="framedit",
    help="An inference server that turns prompts and class labels into video with FrameDiT models.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

keys = typer.Typer(help="API keys: who may use the server, and how much.", no_args_is_help=True, epilog=_EPILOG)
app.add_typer(keys, name="keys")

Checkpoints = Annotated[
    Path | None,
    typer.Option("--checkpoints", help="A folder of checkpoint folders, or one.", show_default="checkpoints"),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the database and the videos are kept.", show_default="data")
]
Host = Annotated[str | None, typer.Option("--host", help="The address to listen on.", show_default="127.0.0.1")]
Port = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="The port to listen on, 0 for any.", show_default="8000")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", show_default="auto")]
Anonymous = Annotated[
    bool | None,
    typer.Option(
        "--allow-anonymous", help="Listen on a network without API keys: everybody may use it.", show_default=False
    ),
]
JsonLogs = Annotated[bool, typer.Option("--json", help="Log and print JSON, an object a line, for programs.")]
RedisUrl = Annotated[
    str | None, typer.Option("--redis-url", help="redis://host:port/0 or unix:///path.", show_default="$REDIS_URL")
]


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"framedit {version('framedit-server')}")
    except PackageNotFoundError:
        typer.echo("framedit (a source tree that is not installed)")
    raise typer.Exit


@app.callback()
def framedit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog=_EPILOG)
def serve(
    port: Port = None,
    host: Host = None,
    checkpoints: Checkpoints = None,
    data_dir: DataDir = None,
    device: Device = None,
    redis_url: RedisUrl = None,
    allow_anonymous: Anonymous = None,
    json: JsonLogs = False,
) -> None:
    """Start everything on this machine: the API, one worker, and a database when REDIS_URL is not given.

    What is queued or finished outlives a restart; Ctrl-C stops all of it, a second one at once.
    """
    end_on_signals()
    with _errors_in_one_line():
        settings = _settings(
            port=port,
            host=host,
            checkpoints=checkpoints,
            data_dir=data_dir,
            device=device,
            redis_url=redis_url,
            allow_anonymous=allow_anonymous,
            json_logs=json,
        )
        _log("serve", settings)
        from cli.serve import serve

        serve(settings, json)


@app.command(epilog=_EPILOG)
def server(
    port: Port = None,
    host: Host = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    allow_anonymous: Anonymous = None,
    json: JsonLogs = False,
    fd: Annotated[int | None, typer.Option("--fd", hidden=True)] = None,
) -> None:
    """Start the API alone; it needs a Redis server (REDIS_URL), and workers somewhere."""
    end_on_signals()
    with _errors_in_one_line():
        settings = _settings(
            port=port,
            host=host,
            data_dir=data_dir,
            redis_url=redis_url,
            allow_anonymous=allow_anonymous,
            json_logs=json,
        )
        _log("server", settings)
        _require_redis(settings, "the server")
        from cli.api import run_server

        run_server(settings, fd)


@app.command(epilog=_EPILOG)
def worker(
    checkpoints: Checkpoints = None,
    data_dir: DataDir = None,
    device: Device = None,
    redis_url: RedisUrl = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queues are empty.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Unlike that of any other worker.")] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            "--devices", help="One process for each: all (the GPUs), 0,1 (some of them), cpu*2.", metavar="LIST"
        ),
    ] = None,
    json: JsonLogs = False,
) -> None:
    """Start one worker, which owns one device, or one for each of several; it needs a Redis server (REDIS_URL).

    SIGTERM or Ctrl-C: it finishes what it can in FRAMEDIT_DRAIN_SECONDS and hands back the rest; a second one: at once.
    """
    end_on_signals()
    with _errors_in_one_line():
        settings = _settings(
            checkpoints=checkpoints,
            data_dir=data_dir,
            device=device,
            redis_url=redis_url,
            json_logs=json,
        )
        _log("worker", settings)
        _require_redis(settings, "a worker")
        if devices is not None:
            if device is not None or burst or name is not None:
                raise typer.BadParameter("it goes with none of --device, --burst, --name", param_hint="--devices")
            from cli.devices import run_devices

            run_devices(settings, devices)
            return
        from worker.main import run_worker

        run_worker(settings, burst=burst, name=name)


@keys.command("create", epilog=_EPILOG)
def create_key(
    name: Annotated[str, typer.Option("--name", help="Whose it is, for the list.")] = "",
    scopes: Annotated[
        str, typer.Option("--scopes", help="What it may do: create, read, admin (everything, of everybody).")
    ] = "create,read",
    requests_per_minute: Annotated[int | None, typer.Option("--requests-per-minute", min=1)] = None,
    videos_in_flight: Annotated[
        int | None, typer.Option("--videos-in-flight", min=1, help="Queued or in progress.")
    ] = None,
    cost_per_day: Annotated[
        float | None, typer.Option("--cost-per-day", help="Steps x rows x tokens; guidance makes two rows.")
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Make an API key and print it, once: it is not kept. From the first one on nobody is served without a key."""
    with _errors_in_one_line():
        from cli.keys import create, key_store

        limits = {
            "requests_per_minute": requests_per_minute,
            "videos_in_flight": videos_in_flight,
            "cost_per_day": cost_per_day,
        }
        with key_store(_settings(data_dir=data_dir, redis_url=redis_url)) as store:
            create(store, name, scopes, limits, as_json)


@keys.command("list", epilog=_EPILOG)
def list_keys(as_json: Json = False, data_dir: DataDir = None, redis_url: RedisUrl = None) -> None:
    """Print every key that was ever made, without its secret."""
    with _errors_in_one_line():
        from cli.keys import key_store, show

        with key_store(_settings(data_dir=data_dir, redis_url=redis_url)) as store:
            show(store, as_json)


@keys.command("revoke", epilog=_EPILOG)
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="As `framedit keys list` shows it: key_...")],
    as_json: Json = False,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Take a key back, from the next request on. Its videos stay; keys with the scope admin can reach them."""
    with _errors_in_one_line():
        from cli.keys import key_store, revoke

        with key_store(_settings(data_dir=data_dir, redis_url=redis_url)) as store:
            revoke(store, key_id, as_json)


@keys.command("disable", epilog=_EPILOG)
def disable_keys(as_json: Json = False, data_dir: DataDir = None, redis_url: RedisUrl = None) -> None:
    """Do without API keys again, once all of them are revoked. The server then serves this machine without one.

    Others on the network only where FRAMEDIT_ALLOW_ANONYMOUS is set. The videos of all keys can then be seen by whoever
    is served.
    """
    with _errors_in_one_line():
        from cli.keys import disable, key_store

        with key_store(_settings(data_dir=data_dir, redis_url=redis_url)) as store:
            disable(store, as_json)


@app.command(epilog=_EPILOG)
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to show; for text models.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The MP4 to write.")] = Path("video.mp4"),
    model: Annotated[str | None, typer.Option("--model", show_default="the first that takes the rest")] = None,
    class_label: Annotated[str | None, typer.Option("--class", help="A class, by name or number.")] = None,
    negative_prompt: Annotated[str | None, typer.Option("--negative-prompt", help="What not to show.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", show_default="random")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.", show_default="the model's")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale; 1 is none.")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", show_default="the model's")] = None,
    frames: Annotated[int | None, typer.Option("--frames", show_default="the model's")] = None,
    fps: Annotated[int | None, typer.Option("--fps", show_default="the model's")] = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Make one video here and now, without a server."""
    with _errors_in_one_line():
        settings = _settings(checkpoints=checkpoints, device=device)
        from cli.generate import make, plan

        wanted = plan(
            settings,
            output,
            {
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
            },
        )
        make(wanted, settings)
        request = wanted.request
        if json:
            _print_json({"file": str(output), **request.model_dump(mode="json")})
            return
        typer.echo(f"{output}  {request.num_frames} frames at {request.fps} fps, {request.model}, seed {request.seed}")


@app.command(epilog=_EPILOG)
def convert(
    source: Annotated[Path, typer.Argument(help="A published .pt, or a diffusers folder.", exists=True)],
    output: Annotated[Path, typer.Argument(help="The checkpoint folder to make.")],
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="As published: FrameDiTH-XL/128-512/2-softmax_u-concat")
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="Frames it was trained on (.pt).")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Pixels it was trained on (.pt).")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="How many; none: unconditional (.pt).")] = None,
    vae: Annotated[Path | None, typer.Option("--vae", help="The diffusers folder of its VAE (.pt).")] = None,
    transformer: Annotated[
        Path | None, typer.Option("--transformer", help="A text-to-video .pt in place of the folder's transformer.")
    ] = None,
    lora: Annotated[Path | None, typer.Option("--lora", help="A LoRA to merge into the weights (folder).")] = None,
    lora_alpha: Annotated[float | None, typer.Option("--lora-alpha", help="Where the LoRA does not say.")] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option("--dtype", help="What the weights are stored in.")
    ] = "float32",
    id: Annotated[str | None, typer.Option("--id", help="The model's name.", show_default="the folder's")] = None,
    description: Annotated[str, typer.Option("--description", help="For the card.")] = "",
    fps: Annotated[int, typer.Option("--fps", help="For the card.")] = 8,
    class_names: Annotated[
        Path | None, typer.Option("--class-names", help="A text file, one name on a line.", exists=True)
    ] = None,
    json: Json = False,
) -> None:
    """Make a checkpoint folder of published weights. Its card.json holds the defaults: edit them there."""
    with _errors_in_one_line():
        from cli.convert import CardWishes, Source, convert

        conversion = convert(
            Source(source, model_name, frames, image_size, classes, vae, transformer, lora, lora_alpha),
            output,
            CardWishes(id, description, fps, class_names),
            dtype,
            report=lambda line: typer.echo(line, err=True),
        )
        if json:
            found = {"folder": str(output), "model_name": conversion.model_name, "parameters": conversion.parameters}
            _print_json(found)
            return
        typer.echo(f"{output}  {conversion.model_name}, {conversion.parameters:,} parameters")


@app.command(epilog=_EPILOG)
def inspect(folder: Annotated[Path, typer.Argument(help="A checkpoint folder.")], json: Json = False) -> None:
    """Print what a checkpoint folder holds, and whether its weights fit its settings."""
    with _errors_in_one_line():
        from models.checkpoint.inspect import describe, inspect_checkpoint

        if json:
            _print_json(dict(inspect_checkpoint(folder)))
        else:
            typer.echo(describe(folder))


@app.command(epilog=_EPILOG)
def config(json: Json = False) -> None:
    """Print the settings in force and where each is from; secrets are hidden.

    The environment goes before a file .env in the present folder, which goes before the defaults.
    """
    with _errors_in_one_line():
        from cli.config import as_json, as_table
        from jobs.effective import read_settings
        from jobs.settings import ClientSettings, Settings

        show = as_json if json else as_table
        typer.echo(show(read_settings(Settings, {}), read_settings(ClientSettings, {})))


@app.command(epilog=_EPILOG)
def health(
    process: Annotated[Literal["server", "worker"], typer.Argument(help="Which of the two to ask about.")],
    json: Json = False,
    redis_url: RedisUrl = None,
) -> None:
    """Ask whether the server or the worker of this machine is well: status 0, or 1 and why not. For health checks."""
    with _errors_in_one_line():
        from cli.health import UnwellError, check_server, check_worker

        settings = _settings(redis_url=redis_url)
        try:
            if process == "server":
                check_server(settings)
            else:
                _require_redis(settings, "a worker")
                check_worker(settings)
        except UnwellError as error:
            if json:
                _print_json({"process": process, "status": "unwell", "reason": error.message})
            raise
        if json:
            _print_json({"process": process, "status": "ok"})


def _settings(json_logs: bool = False, **given: Any) -> "Settings":
    """The settings, an option before its variable."""
    from jobs.effective import read_settings
    from jobs.settings import Settings

    if json_logs:
        given["log_format"] = "json"
    return read_settings(Settings, given).settings


def _print_json(value: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _require_redis(settings: "Settings", who: str) -> None:
    from worker.errors import StartupError

    if settings.redis_url is None:
        raise StartupError(f"{who} needs a Redis server: set REDIS_URL, or use `framedit serve`, which brings one")


def _log(process: str, settings: "Settings") -> None:
    from cli.logs import configure_logging
    from jobs.effective import secrets_of

    configure_logging(process, settings.log_level, settings.log_format, secrets_of(settings))


remote.add_to(app)


def main() -> None:
    """The `framedit` command."""
    app()


if __name__ == "__main__":
    main()
