"""`framedit serve`: an embedded database where none is given, one worker, and the API, on one machine."""

import http.client
import json
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from cli.embedded_redis import EmbeddedRedis
from cli.listening import check_guarded, listen, url_of, who_is_served
from cli.supervisor import Program, Supervisor
from cli.worker_child import FRAMEDIT, environment_of, recover, worker_program
from jobs.cards import ModelCard, announce
from jobs.connection import connect, wait_until_loaded
from jobs.settings import Settings
from worker.errors import StartupError
from worker.folders import find_checkpoints

logger = logging.getLogger(__name__)

_WORKER_PREFIX = "serve-"


def serve(settings: Settings, as_json: bool = False) -> None:
    """Run until SIGINT or SIGTERM; print what is served once it is. Raises `FrameditError` for what keeps it from
    starting."""
    cards = find_checkpoints(settings.checkpoints).values()
    listener = listen(settings.host, settings.port)
    database = EmbeddedRedis(settings.data_dir / "redis") if settings.redis_url is None else None
    try:
        if database is None:
            _run(settings, listener, cards, as_json, lambda: None)
            return
        settings = settings.model_copy(update={"redis_url": database.start()})
        # The lock on the data folder says that the worker of an earlier run is gone: nobody need wait for its lease.
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
    has_keys = _make_known(settings, cards)
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
    url = url_of(listener)
    text = (_banner_as_json if as_json else _banner)(url, list(cards), settings, has_keys)
    Supervisor(programs, alive).run(on_started=lambda: _announce_when_up(url, text))
    logger.info("stopped")


def _make_known(settings: Settings, cards: Iterable[ModelCard]) -> bool:
    """Requests are taken, and wait, from the moment the API answers: the worker needs longer to load its models.

    Nothing is announced by a server that may not start. Answers whether an API key is needed.
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
        raise StartupError(f"the Redis server at {_public(settings.redis_url)} does not answer: {error}") from error


def _public(url: str) -> str:
    """Without the parts that may hold a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _keep_alive(database: EmbeddedRedis) -> None:
    if database.revive():
        logger.warning("the embedded Redis server died and was started again; nothing that it had answered is lost")


def _announce_when_up(url: str, text: str) -> bool:
    if not _answers(url):
        return False
    print(text, flush=True)
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


def _banner(url: str, cards: Sequence[ModelCard], settings: Settings, has_keys: bool) -> str:
    body = json.dumps(_example(cards))
    videos = f"{url}/v1/videos"
    # A key is named, never shown: nobody but who holds it knows it.
    curl = 'curl -s -H "Authorization: Bearer $FRAMEDIT_API_KEY"' if has_keys else "curl -s"
    lines = [
        "",
        f"  FrameDiT server on {url}   (Ctrl-C stops it)",
        "",
        *(f"  {card.id:<16} {_describe(card)}" for card in cards),
        "",
        f"  data and videos: {settings.data_dir.resolve()}",
        f"  {who_is_served(settings, has_keys)}",
        "",
        "  Try it, with an API key in FRAMEDIT_API_KEY:" if has_keys else "  Try it:",
        f"    {curl} {videos} -H 'Content-Type: application/json' \\",
        f"      -d '{body}'",
        f"    {curl} {videos}/VIDEO_ID                          # until its status is completed",
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
