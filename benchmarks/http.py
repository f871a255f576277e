"""Measure the API under load: 1,000 polling clients, open event streams, throughput, memory.

    python -m benchmarks.http [--clients 1000] [--seconds 10] [--rounds 5] [--streams 500] [--requests 50000]

One API process runs as `framedit server` starts it, with its own database. A simulated worker advances the videos, so
that their records change as in production. No model runs, and this process generates the load. Polling a video is
compared with a bare FastAPI route that reads the same Redis hash. Both sides run in turn, so that other load on the
machine affects both.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.parts.http_client import HttpConnection
from benchmarks.parts.machine import describe_machine
from cli.bench.summary import percentile
from cli.processes.embedded_redis import EmbeddedRedis
from jobs import redis_keys
from jobs.admission.worker_load import WorkerLoad, publish_load
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.queue.claimed_videos import ClaimedVideos
from jobs.videos.record import Artifact, Timings

RESULTS = Path(__file__).parent / "results"
CARD = ModelCard(
    id="bench",
    conditioning="text",
    num_frames=16,
    max_frames=16,
    height=64,
    width=64,
    fps=8,
    num_inference_steps=20,
    guidance_scale=1,
    sampler="ddim",
    samplers=["ddim"],
)
BODY = {"model": CARD.id, "prompt": "a red circle moving right on a black background"}
WORKER = "simulated"
SLOTS = 8
STEP_SECONDS = 0.1
TTL_SECONDS = 3600
_ENDED = (b'"status":"completed"', b'"status":"failed"')


@dataclass(frozen=True)
class Bench:
    """The running processes: the API on one port, the bare route on another, and the store that both read."""

    port: int
    bare_port: int
    server: subprocess.Popen[bytes]
    bare: subprocess.Popen[bytes]
    store: ClaimedVideos

    def memory_mib(self) -> float:
        """Resident memory of the API process."""
        pages = int(Path(f"/proc/{self.server.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def running() -> Iterator[Bench]:
    """Start both sides and the simulated worker, and stop them at the end of the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = EmbeddedRedis(folder / "redis")
        stack.callback(database.stop)
        url = database.start()
        redis = stack.enter_context(connect(url))
        announce(redis, CARD, WORKER, TTL_SECONDS)
        port, bare_port = _free_port(), _free_port()
        environment = os.environ | {"REDIS_URL": url, "FRAMEDIT_DATA_DIR": str(folder), "FRAMEDIT_LOG_LEVEL": "warning"}
        commands = (["cli.main", "server", "--port", str(port)], ["benchmarks.parts.http_bare", url, str(bare_port)])
        processes = [subprocess.Popen([sys.executable, "-m", *command], env=environment) for command in commands]
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for number in (port, bare_port):
            _wait_for(number)
        store = ClaimedVideos(redis)
        stack.enter_context(_working(store, redis))
        yield Bench(port, bare_port, processes[0], processes[1], store)


@contextmanager
def _working(store: ClaimedVideos, redis: Any) -> Iterator[None]:
    """Advance the oldest videos, `SLOTS` at a time, as a worker does."""
    ended = threading.Event()

    def work() -> None:
        steps: dict[str, int] = {}
        while not ended.wait(STEP_SECONDS):
            oldest = (raw.decode() for raw in redis.zrange(redis_keys.UNFINISHED, 0, SLOTS - 1))
            for record in filter(None, map(store.find, oldest)):
                rate = record.cost / (record.steps * STEP_SECONDS) * SLOTS
                publish_load(redis, WORKER, WorkerLoad(cost_per_second={CARD.id: rate}), TTL_SECONDS)
                steps[record.id] = steps.get(record.id, -1) + 1
                if record.status == "queued":
                    store.start(record.id, WORKER)
                elif steps[record.id] < record.steps:
                    store.progress(record.id, steps[record.id], record.steps, WORKER)
                else:
                    store.complete(record.id, {"video": Artifact(num_bytes=1, sha256="0")}, Timings(), WORKER)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def create(bench: Bench, count: int) -> tuple[list[str], list[float]]:
    """Create videos one after the other. Returns their ids and the seconds of each `POST`."""
    ids, seconds = [], []
    async with HttpConnection(bench.port) as connection:
        for _ in range(count):
            answer = await connection.request("POST", "/v1/videos", BODY)
            assert answer.status == 200, answer.body
            ids.append(answer.json()["id"])
            seconds.append(answer.seconds)
    return ids, seconds


@dataclass(frozen=True)
class Polling:
    """The seconds of each answer, and the pauses in seconds that the server named for the next poll."""

    taken: list[float]
    pauses: list[float]


async def poll(bench: Bench, port: int, ids: list[str], seconds: float, pause: float | None) -> Polling:
    """Poll each of `ids` at `port` every `pause` seconds (None: as often as the server says), with one client each.

    A client whose video has ended creates another and replaces its id in `ids`, so the number of waiting clients stays.
    """
    polling = Polling([], [])
    loop = asyncio.get_running_loop()
    all_connected = asyncio.Barrier(len(ids))
    gc.collect()
    gc.freeze()  # a pause of this process would look like one of the server

    async def client(number: int) -> None:
        async with HttpConnection(port) as connection:
            await all_connected.wait()  # the connections are not part of the measurement
            end = loop.time() + 1 + seconds
            await asyncio.sleep((pause or 1) * random.random())  # spread the first polls
            while loop.time() < end:
                answer = await connection.request("GET", f"/v1/videos/{ids[number]}")
                assert answer.status == 200, answer.body
                polling.taken.append(answer.seconds)
                if any(ended in answer.body for ended in _ENDED):
                    async with HttpConnection(bench.port) as creating:
                        ids[number] = (await creating.request("POST", "/v1/videos", BODY)).json()["id"]
                if milliseconds := answer.headers.get("openai-poll-after-ms"):
                    polling.pauses.append(int(milliseconds) / 1000)
                # Real networks vary: without jitter, the same clients would poll together every time.
                await asyncio.sleep((pause or int(milliseconds or 1000) / 1000) * random.uniform(0.8, 1.2))

    await asyncio.gather(*(client(number) for number in range(len(ids))))
    return polling


@dataclass(frozen=True)
class Throughput:
    """Answered requests a second, and the server's processor time for each."""

    requests_a_second: float
    cpu_us: float


async def request_without_pause(port: int, pid: int, ids: Sequence[str], seconds: float, clients: int) -> Throughput:
    """Send the next request of each client right after its answer."""
    count = 0
    started, cpu_before = time.perf_counter(), _cpu_seconds(pid)

    async def client() -> None:
        nonlocal count
        async with HttpConnection(port) as connection:
            while time.perf_counter() - started < seconds:
                await connection.request("GET", f"/v1/videos/{random.choice(ids)}")
                count += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return Throughput(count / (time.perf_counter() - started), (_cpu_seconds(pid) - cpu_before) / count * 1e6)


def compare_polling(bench: Bench, ids: list[str], seconds: float, rounds: int) -> dict[str, Any]:
    """Compare both sides: polls as often as the server says, polls every second, and requests without pause."""
    sides = {"ours": bench.port, "bare": bench.bare_port}
    as_told: dict[str, list[Polling]] = {side: [] for side in sides}
    every_second: dict[str, list[Polling]] = {side: [] for side in sides}
    throughputs: dict[str, list[Throughput]] = {side: [] for side in sides}
    pids = {"ours": bench.server.pid, "bare": bench.bare.pid}
    for _ in range(rounds):
        as_told["ours"].append(uvloop.run(poll(bench, bench.port, ids, seconds, None)))
        as_told["bare"].append(
            uvloop.run(poll(bench, bench.bare_port, ids, seconds, median(as_told["ours"][-1].pauses)))
        )
        for side, port in sides.items():
            every_second[side].append(uvloop.run(poll(bench, port, ids, seconds, 1.0)))
        for side, port in sides.items():
            throughputs[side].append(uvloop.run(request_without_pause(port, pids[side], ids, seconds / 2, clients=16)))
    return {
        "as_told": {
            "pause_seconds": round(median(median(polling.pauses) for polling in as_told["ours"]), 2),
            **_compare(as_told),
        },
        "every_second": _compare(every_second),
        "without_pause": {
            "ours": _throughput(throughputs["ours"]),
            "bare": _throughput(throughputs["bare"]),
            "requests_ratio": _ratio(
                [each.requests_a_second for each in throughputs[side]] for side in ("bare", "ours")
            ),
            "cpu_ratio": _ratio([each.cpu_us for each in throughputs[side]] for side in ("ours", "bare")),
        },
    }


def _compare(rounds: dict[str, list[Polling]]) -> dict[str, Any]:
    medians = ([percentile(polling.taken, 0.5) for polling in rounds[side]] for side in ("ours", "bare"))
    return {side: _summary(rounds[side]) for side in rounds} | {"p50_ratio": _ratio(medians)}


def _ratio(sides: Iterable[Sequence[float]]) -> float:
    """The first side as a multiple of the second one: the median over the rounds."""
    return round(float(median(first / second for first, second in zip(*sides, strict=True))), 2)


def _summary(rounds: Sequence[Polling]) -> dict[str, float]:
    p99 = [1000 * percentile(polling.taken, 0.99) for polling in rounds]
    return {
        "polls": round(median(len(polling.taken) for polling in rounds)),
        "p50_ms": round(median(1000 * percentile(polling.taken, 0.5) for polling in rounds), 2),
        "p99_ms": round(median(p99), 2),
        "p99_ms_of_the_best_round": round(min(p99), 2),
        "p99_ms_of_the_worst_round": round(max(p99), 2),
    }


def _throughput(rounds: Sequence[Throughput]) -> dict[str, int]:
    return {
        "requests_a_second": round(median(each.requests_a_second for each in rounds)),
        "cpu_us_a_request": round(median(each.cpu_us for each in rounds)),
    }


async def open_streams(bench: Bench, ids: Sequence[str]) -> dict[str, Any]:
    """Measure the memory of the API process with an open event stream for each id."""
    before = bench.memory_mib()
    async with asyncio.TaskGroup() as group:
        measured = asyncio.Event()
        num_open = 0

        async def follow(video_id: str) -> None:
            nonlocal num_open
            async with HttpConnection(bench.port) as connection:
                connection.send("GET", f"/v1/videos/{video_id}/events")
                status, _ = await connection.head()
                assert status == 200
                await connection.read_until(b"data: ")
                num_open += 1
                await measured.wait()

        for video_id in ids:
            group.create_task(follow(video_id))
        while num_open < len(ids):
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        during = bench.memory_mib()
        measured.set()
    return {"streams": len(ids), "before_mib": round(before, 1), "open_mib": round(during, 1)}


async def measure_memory(bench: Bench, ids: Sequence[str], requests: int) -> dict[str, Any]:
    """Measure the memory of the API process after each fifth of the requests. One in a hundred is a `POST`."""
    sizes = [bench.memory_mib()]
    async with asyncio.TaskGroup() as group:
        for _ in range(5):

            async def part() -> None:
                async with HttpConnection(bench.port) as connection:
                    for number in range(requests // 5 // 8):
                        if number % 100 == 0:
                            await connection.request("POST", "/v1/videos", BODY)
                        else:
                            await connection.request("GET", f"/v1/videos/{random.choice(ids)}")

            await asyncio.gather(*(group.create_task(part()) for _ in range(8)))
            sizes.append(bench.memory_mib())
    return {"requests": requests, "mib": [round(size, 1) for size in sizes]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10, help="duration of polling in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--requests", type=int, default=50_000, help="requests of the memory measurement")
    parser.add_argument("--output", type=Path, default=RESULTS / "http.json")
    options = parser.parse_args(arguments)

    machine = describe_machine("cpu")
    with running() as bench:
        uvloop.run(create(bench, 20))
        ids, post_seconds = uvloop.run(create(bench, options.clients))
        results = {
            "machine": machine,
            "post": {
                "p50_ms": round(1000 * median(post_seconds), 2),
                "p99_ms": round(1000 * percentile(post_seconds, 0.99), 2),
            },
            "polling": compare_polling(bench, ids, options.seconds, options.rounds),
            "streams": uvloop.run(open_streams(bench, ids[-options.streams :])),
            "memory": uvloop.run(measure_memory(bench, ids, options.requests)),
        }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)


if __name__ == "__main__":
    main()
