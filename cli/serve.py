"""`framedit serve`: an embedded database where none is given, one worker, and the API, on one machine."""

import http.client
import json
import logging
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from cli.embedded_redis import EmbeddedRedis
from cli.listening import check_guarded, listen, url_of
from cli.supervisor import Program, Supervisor
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.settings import Settings
from jobs.store import VideoStore
from worker.errors import StartupError
from worker.folders import find_checkpoints
from worker.maintenance import Maintenance

logger = logging.getLogger(__name__)

_WORKER_PREFIX = "serve-"


def serve(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM. Raises `FrameditError` for what keeps it from starting."""
    cards = find_checkpoints(settings.checkpoints).values()
    listener = listen(settings.host, settings.port)
    database = EmbeddedRedis(settings.data_dir / "redis") if settings.redis_url is None else None
    try:
        if database is None:
            _run(settings, listener, cards, lambda: None)
            return
        settings = settings.model_copy(update={"redis_url": database.start()})
        # The lock on the data folder says that the worker of an earlier run is gone: nobody need wait for its lease.
        _recover(settings, _WORKER_PREFIX)
        _run(settings, listener, cards, lambda: _keep_alive(database))
    finally:
        listener.close()
        if database is not None:
            database.stop()


def _run(settings: Settings, listener: socket.socket, cards: Iterable[ModelCard], alive: Callable[[], None]) -> None:
    _make_known(settings, cards)
    env = _environment(settings)
    worker_name = ""

    def worker_command() -> Sequence[str]:
        nonlocal worker_name
        worker_name = f"{_WORKER_PREFIX}{secrets.token_hex(6)}"
        return [*_FRAMEDIT, "worker", "--name", worker_name]

    listener.set_inheritable(True)
    programs = [
        Program("worker", worker_command, env, on_death=lambda: _recover(settings, worker_name)),
        Program(
            "server",
            lambda: [*_FRAMEDIT, "server", "--fd", str(listener.fileno())],
            env,
            pass_fds=[listener.fileno()],
        ),
    ]
    url = url_of(listener)
    Supervisor(programs, alive).run(on_started=lambda: _announce_when_up(url, list(cards), settings))
    logger.info("stopped")


_FRAMEDIT = (sys.executable, "-m", "cli.main")


def _environment(settings: Settings) -> dict[str, str]:
    """The settings for the child processes: what was given as an option reaches them as a variable."""
    values = settings.model_dump(mode="json", exclude_none=True)
    paths = {
        name: str(value.resolve())
        for name in ("data_dir", "artifacts", "checkpoints")
        if isinstance(value := getattr(settings, name), Path)
    }
    return {f"FRAMEDIT_{name.upper()}": str(value) for name, value in (values | paths).items()}


def _make_known(settings: Settings, cards: Iterable[ModelCard]) -> None:
    """Requests are taken, and wait, from the moment the API answers: the worker needs longer to load its models.

    Nothing is announced by a server that may not start.
    """
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, settings.redis_timeout_seconds) as redis:
            check_guarded(settings, redis)
            for card in cards:
                announce(redis, card, "serve", ttl_seconds=0)
    except RedisError as error:
        raise StartupError(f"the Redis server at {_public(settings.redis_url)} does not answer: {error}") from error


def _public(url: str) -> str:
    """Without the parts that may hold a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _recover(settings: Settings, worker_name: str) -> None:
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, settings.redis_timeout_seconds) as redis:
            store = VideoStore(redis, settings.max_attempts, settings.video_ttl_seconds)
            Maintenance(redis, store, settings.max_attempts).recover_worker(worker_name)
    except RedisError as error:
        logger.warning("the lease of the dead worker stands until it ends by itself: %s", error)


def _keep_alive(database: EmbeddedRedis) -> None:
    if database.revive():
        logger.warning("the embedded Redis server died and was started again; nothing that it had answered is lost")


def _announce_when_up(url: str, cards: Sequence[ModelCard], settings: Settings) -> bool:
    if not _answers(url):
        return False
    print(_banner(url, cards, settings), flush=True)
    return True


def _answers(url: str) -> bool:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=0.5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _banner(url: str, cards: Sequence[ModelCard], settings: Settings) -> str:
    body = json.dumps(_example(cards))
    lines = [
        "",
        f"  FrameDiT server on {url}   (Ctrl-C stops it)",
        "",
        *(f"  {card.id:<16} {_describe(card)}" for card in cards),
        "",
        f"  data and videos: {settings.data_dir.resolve()}",
        "",
        "  Try it:",
        f"    curl -s {url}/v1/videos -H 'Content-Type: application/json' \\",
        f"      -d '{body}'",
        f"    curl -s {url}/v1/videos/VIDEO_ID                          # until its status is completed",
        f"    curl -s {url}/v1/videos/VIDEO_ID/content -o video.mp4",
        "",
    ]
    return "\n".join(lines)


def _describe(card: ModelCard) -> str:
    kind = {"text": "from a prompt", "class": f"{len(card.class_names or ())} classes", "none": "unconditional"}
    return f"{kind[card.conditioning]}, {card.num_frames} frames of {card.size} at {card.fps} fps"


def _example(cards: Sequence[ModelCard]) -> dict[str, object]:
    card = next((card for card in cards if card.conditioning == "text"), cards[0])
    if card.conditioning == "text":
        return {"model": card.id, "prompt": (card.examples or ["a red circle"])[0].replace("'", ""), "seed": 7}
    if card.conditioning == "class":
        return {"model": card.id, "class_label": (card.class_names or [""])[0], "seed": 7}
    return {"model": card.id, "seed": 7}
