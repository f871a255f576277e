"""A worker as a child process: how it is started, what it is told, and what is done when it has died."""

import logging
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from redis.exceptions import RedisError

from cli.supervisor import Program
from jobs.connection import connect
from jobs.settings import Settings
from jobs.store import VideoStore
from worker.maintenance import Maintenance

logger = logging.getLogger(__name__)

FRAMEDIT = (sys.executable, "-m", "cli.main")
# After its drain: the file that is being made, and telling Redis what became of the rest.
END_SECONDS = 20.0


def worker_program(label: str, prefix: str, settings: Settings, env: Mapping[str, str]) -> Program:
    """A worker with these settings and with `env` over them. Each start has a name of its own that begins with
    `prefix`; a dead one's videos go back to the queue at once."""
    name = ""

    def command() -> list[str]:
        nonlocal name
        name = f"{prefix}{secrets.token_hex(6)}"
        return [*FRAMEDIT, "worker", "--name", name]

    return Program(
        label,
        command,
        {**environment_of(settings), **env},
        on_death=lambda: recover(settings, name),
        stop_timeout_seconds=settings.drain_seconds + END_SECONDS,
    )


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings for a child process: what was given as an option reaches it as a variable."""
    values = settings.model_dump(mode="json", exclude_none=True)
    paths = {
        name: str(value.resolve())
        for name in ("data_dir", "artifacts", "checkpoints")
        if isinstance(value := getattr(settings, name), Path)
    }
    return {f"FRAMEDIT_{name.upper()}": str(value) for name, value in (values | paths).items()}


def recover(settings: Settings, worker_prefix: str) -> None:
    """Bring back what dead workers had, by the start of their names, without waiting for their leases to end."""
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, settings.redis_timeout_seconds) as redis:
            store = VideoStore(redis, settings.max_attempts, settings.video_ttl_seconds)
            Maintenance(redis, store, settings.max_attempts).recover_worker(worker_prefix)
    except RedisError as error:
        logger.warning("the lease of the dead worker stands until it ends by itself: %s", error)
