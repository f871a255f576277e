"""All processes of `framedit serve`: an embedded database if REDIS_URL is not set, one worker, and the API."""

import http.client
import json
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from cli.processes.embedded_redis import EmbeddedRedis
from cli.processes.listener import check_certificate_files, check_guarded, listen, url_of, who_is_served
from cli.processes.supervisor import Program, Supervisor
from cli.processes.worker_process import FRAMEDIT, environment_of, recover, worker_program
from jobs.cards import ModelCard, announce
from jobs.connection import connect, wait_until_loaded
from jobs.settings import Settings
from worker.errors import StartupError
from worker.loading.checkpoint_discovery import find_checkpoints

logger = logging.getLogger(__name__)

_WORKER_PREFIX = "serve-"


def serve(settings: Settings, as_json: bool = False) -> None:
    """Run until SIGINT or SIGTERM, and print the banner when the API is up.

    Raises `FrameditError` if a part cannot start.
    """
    check_certificate_files(settings)
    cards = find_checkpoints(settings.checkpoints).values()
    listener = listen(settings.host, settings.port)
    database = EmbeddedRedis(settings.data_dir / "redis") if settings.redis_url is None else None
    try:
        if database is None:
            _run(settings, listener, cards, as_json, lambda: None)
            return
        settings = settings.model_copy(update={"redis_url": database.start()})
        # The lock on the data folder proves that the worker of an earlier run is dead: its lease need not expire.
        recover(settings, _WORKER_PREFIX)
        _run(settings, listener, cards, as_json, lambda: _keep_alive(database))
    finally:
        listener.close()
        if database is not None:
            database.stop()


def _run(
    settings: Settings,
    listener: socket.socket,
    cards: Iterable[ModelCard],
    as_json: bool,
    alive: Callable[[], None],
) -> None:
    has_keys = _announce_models(settings, cards)
    listener.set_inheritable(True)
    programs = [
        worker_program("worker", _WORKER_PREFIX, settings, {}),
        Program(
            "server",
            lambda: [*FRAMEDIT, "server", "--fd", str(listener.fileno())],
            environment_of(settings),
            pass_fds=[listener.fileno()],
        ),
    ]
    url = url_of(listener, settings)
    text = (_banner_as_json if as_json else _banner)(url, list(cards), settings, has_keys)
    Supervisor(programs, alive).run(on_started=lambda: _announce_when_up(url, text))
    logger.info("stopped")


def _announce_models(settings: Settings, cards: Iterable[ModelCard]) -> bool:
    """Announce the models, and return whether API keys exist.

    The API accepts requests, which then queue, while the worker still loads its models. The access check comes first:
    a server that must not start announces nothing.
    """
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, settings.redis_timeout_seconds) as redis:
            wait_until_loaded(redis)
            has_keys = check_guarded(settings, redis)
            for card in cards:
                announce(redis, card, "serve", ttl_seconds=0)
            return has_keys
    except RedisError as error:
        raise StartupError(
            f"the Redis server at {_without_credentials(settings.redis_url)} does not answer: {error}"
        ) from error


def _without_credentials(url: str) -> str:
    """The URL without the parts that may contain a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _keep_alive(database: EmbeddedRedis) -> None:
    if database.revive():
        logger.warning("embedded Redis server died, restarted; no acknowledged write is lost")


def _announce_when_up(url: str, text: str) -> bool:
    if not _answers(url):
        return False
    print(text, flush=True)
    return True


def _answers(url: str) -> bool:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=0.5)
    if address.scheme == "https":
        # The certificate names the host that clients use, which is rarely this address.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=0.5, context=context)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _banner(url: str, cards: Sequence[ModelCard], settings: Settings, has_keys: bool) -> str:
    body = json.dumps(_example(cards))
    videos = f"{url}/v1/videos"
    # The command names the variable: the server stores only the hash of a key.
    curl = 'curl -s -H "Authorization: Bearer $FRAMEDIT_API_KEY"' if has_keys else "curl -s"
    lines = [
        "",
        f"  FrameDiT server on {url}   (Ctrl-C to stop)",
        "",
        *(f"  {card.id:<16} {_describe(card)}" for card in cards),
        "",
        f"  data folder: {settings.data_dir.resolve()}",
        f"  {who_is_served(settings, has_keys)}",
        "",
        "  Example, with an API key in FRAMEDIT_API_KEY:" if has_keys else "  Example:",
        f"    {curl} {videos} -H 'Content-Type: application/json' \\",
        f"      -d '{body}'",
        f"    {curl} {videos}/VIDEO_ID                          # repeat until the status is completed",
        f"    {curl} {videos}/VIDEO_ID/content -o video.mp4",
        "",
    ]
    return "\n".join(lines)


def _banner_as_json(url: str, cards: Sequence[ModelCard], settings: Settings, has_keys: bool) -> str:
    models = [card.id for card in cards]
    data_dir = str(settings.data_dir.resolve())
    return json.dumps(
        {"url": url, "models": models, "data_dir": data_dir, "needs_key": has_keys, "try": _example(cards)}
    )


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
