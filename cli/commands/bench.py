"""`framedit bench`: load on a server, and the comparison of two results."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command import connected_client, one_line_errors
from cli.options import EPILOG, ApiKey, Server
from cli.table import print_table

if TYPE_CHECKING:
    from cli.bench.arrivals import Arrivals
    from cli.bench.load import Limits, Load
    from cli.bench.summary import Summary
    from cli.bench.workload import Workload
    from cli.client.api_client import Client

commands = typer.Typer()

_DEFAULT_CONCURRENCY = 4
_DEFAULT_NUM_VIDEOS = 32


@commands.command(epilog=EPILOG)
def bench(
    rate: Annotated[
        float | None, typer.Option("--rate", help="Videos a second, at random times (Poisson).", show_default=False)
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", min=1, help="Videos at a time, instead of --rate.", show_default=str(_DEFAULT_CONCURRENCY)
        ),
    ] = None,
    num_videos: Annotated[
        int | None,
        typer.Option(
            "--num-videos", "-n", min=1, help="Number of videos.", show_default=f"{_DEFAULT_NUM_VIDEOS}, or --duration"
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", help="Seconds in which videos are requested.", show_default=False)
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            help="File with one prompt a line, or .jsonl with the fields of one request a line.",
            show_default="the model's examples or classes",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name of the model.", show_default="the server's only one")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", help="Denoising steps; 20:3,50:1 mixes them 3 to 1.", show_default="the model's"),
    ] = None,
    frames: Annotated[
        str | None, typer.Option("--frames", help="Numbers of frames, mixed in the same way.", show_default=False)
    ] = None,
    priority: Annotated[
        str | None, typer.Option("--priority", help="Priorities, such as high:1,normal:4.", show_default=False)
    ] = None,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, help="Videos before the measurement, one after the other.")
    ] = 1,
    slo_seconds: Annotated[
        float | None,
        typer.Option("--slo-seconds", help="A video counts for goodput if it is done by then.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of prompts, mixes and arrivals.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Do not delete the videos afterwards.")] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the latencies as an SVG file.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Compare two results that --json has written; send nothing.", metavar="A B"),
    ] = None,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Put load on a server and measure queue time, time to the first progress, and time until done.

    Works with any server of the OpenAI videos API. Latencies count from the time a request is due, not from the time
    it is sent. Ctrl-C deletes the videos that have not ended.

    Exit status 1: no video was completed, or the server is unreachable; 2: wrong usage.
    """
    with one_line_errors():
        _check_plot(plot)
        _check_outputs(json, plot)
        if compare is not None:
            _compare(*compare, plot)
            return
        arrivals = _arrivals(rate, concurrency, seed)
        limits = _limits(num_videos, duration)
        mixes = {"num_inference_steps": steps, "num_frames": frames, "priority": priority}
    with connected_client(server, api_key, tries=1) as client:
        from cli.bench.load import Load
        from cli.client.download import VideoFailedError

        workload = _workload(client, model, prompts, mixes, seed)
        options = {"server": client.server, "model": workload.model, "load": arrivals.describe()} | mixes
        _warm_up(client, workload, warm_up)
        summary = _run(Load(client, workload, arrivals, limits, delete=not keep), options, slo_seconds)
        _print(summary)
        if json is not None:
            summary.save(json)
        if plot is not None:
            _plot(summary, plot)
        if summary.count("completed") == 0:
            raise VideoFailedError("no video was completed")


def _arrivals(rate: float | None, concurrency: int | None, seed: int) -> "Arrivals":
    from cli.bench.arrivals import Concurrent, Poisson

    if rate is None:
        return Concurrent(concurrency or _DEFAULT_CONCURRENCY)
    if concurrency is not None:
        raise ValueError("--rate and --concurrency were both given: choose one")
    if not 0 < rate < float("inf"):
        raise ValueError(f"--rate is {rate:g}: give a number above 0")
    return Poisson(rate, seed)


def _limits(num_videos: int | None, duration: float | None) -> "Limits":
    from cli.bench.load import Limits

    if duration is not None and not 0 < duration < float("inf"):
        raise ValueError(f"--duration is {duration:g}: give a number of seconds above 0")
    return Limits(num_videos or (None if duration else _DEFAULT_NUM_VIDEOS), duration)


def _workload(
    client: "Client", model: str | None, prompts: Path | None, mixes: dict[str, str | None], seed: int
) -> "Workload":
    from cli.bench.mix import Mix
    from cli.bench.workload import Workload, choose_model, inputs_of, read_inputs

    parsed = {name: Mix.parse(text, name) for name, text in mixes.items() if text is not None}
    inputs = None if prompts is None else read_inputs(prompts)
    found = choose_model(client.models(), model)
    return Workload(found["id"], inputs_of(found) if inputs is None else inputs, parsed, seed)


def _warm_up(client: "Client", workload: "Workload", count: int) -> None:
    from cli.bench.arrivals import Concurrent
    from cli.bench.load import Limits, Load
    from cli.client.download import VideoFailedError

    if count == 0:
        return
    samples = Load(client, workload, Concurrent(1), Limits(count)).run()
    if failed := next((sample for sample in samples if sample.outcome != "completed"), None):
        raise VideoFailedError(f"a video of the warm-up was {failed.outcome}: {failed.error}")


def _run(load: "Load", options: dict[str, Any], slo_seconds: float | None) -> "Summary":
    from cli.bench.live_table import LiveTable
    from cli.bench.summary import Summary

    live_table = LiveTable()
    try:
        samples = load.run(live_table.show)
    finally:
        live_table.clear()
        if refusals := load.tally.not_deleted:
            typer.echo(f"{len(refusals)} videos were not deleted: {refusals[0]}", err=True)
    return Summary(options, samples, slo_seconds)


def _print(summary: "Summary") -> None:
    typer.echo(", ".join(f"{name} {value}" for name, value in summary.options.items() if value is not None))
    counts = ", ".join(f"{summary.count(outcome)} {outcome}" for outcome in ("completed", "failed", "refused"))
    typer.echo(f"{counts} in {summary.duration_s:.1f} s: {summary.videos_per_second:.3g} videos/s")
    if summary.slo_seconds is not None:
        share = summary.within_slo / (len(summary.samples) or 1)
        within = f"{summary.within_slo} of {len(summary.samples)} within {summary.slo_seconds:g} s ({share:.0%})"
        typer.echo(f"{within}: {summary.goodput:.3g} videos/s goodput")
    print_table(("SECONDS", "MEAN", "P50", "P90", "P99"), summary.rows())
    for error, count in summary.errors().items():
        typer.echo(f"{count} times: {error}")


def _compare(first_path: Path, second_path: Path, plot: Path | None) -> None:
    from cli.bench.chart import draw
    from cli.bench.compare import compare, differences
    from cli.bench.summary import Summary

    first, second = Summary.load(first_path), Summary.load(second_path)
    for difference in differences(first, second):
        typer.echo(f"the loads differ in {difference}")
    print_table(("", str(first_path), str(second_path), "CHANGE"), compare(first, second))
    if plot is not None:
        done = {str(path): summary.seconds("done_s") for path, summary in ((first_path, first), (second_path, second))}
        plot.write_text(draw(done, "share of the videos that were done after x seconds", first.slo_seconds))


def _plot(summary: "Summary", path: Path) -> None:
    from cli.bench.chart import draw
    from cli.bench.summary import STAGES

    lines = {name: summary.seconds(stage) for stage, name in STAGES.items() if summary.seconds(stage)}
    path.write_text(draw(lines, "share of the videos by seconds since the request", summary.slo_seconds))


def _check_outputs(*paths: Path | None) -> None:
    """Refuse files that could not be written, before the load."""
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"the folder {path.parent} does not exist: create it, or choose another file")


def _check_plot(path: Path | None) -> None:
    if path is not None and path.suffix != ".svg":
        raise ValueError(f"--plot is {path}: plots are SVG files, name one that ends in .svg")
