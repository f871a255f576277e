"""A worker as a child process: its command, its environment, and the recovery of its videos after its death."""

import logging
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr
from redis.exceptions import RedisError

from cli.processes.supervisor import Program
from jobs.connection import connect
from jobs.queue.recover import LostVideos, Recovery
from jobs.settings import Settings

logger = logging.getLogger(__name__)

# Without -P the current directory comes first on the module search path, and a user's folder `cli` or `jobs` would be
# imported instead of this package.
FRAMEDIT = (sys.executable, "-P", "-m", "cli.main")
# After its drain, a worker writes the current file and returns the other videos to the queue.
END_SECONDS = 20.0


def worker_program(label: str, prefix: str, settings: Settings, env: Mapping[str, str]) -> Program:
    """A worker with these settings, overridden by `env`.

    Each start gets a new name that begins with `prefix`. The videos of a dead worker return to the queue at once.
    """
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
    """Return the settings as variables of a child process, options included."""
    values = settings.model_dump(mode="json", exclude_none=True)
    secrets = {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}
    paths = {
        name: str(value.resolve())
        for name in ("data_dir", "artifacts", "checkpoints", "adapters", "tls_cert", "tls_key", "audit_log")
        if isinstance(value := getattr(settings, name), Path)
    }
    return {f"FRAMEDIT_{name.upper()}": str(value) for name, value in (values | paths | secrets).items()}


def recover(settings: Settings, worker_prefix: str) -> None:
    """Return the videos of dead workers to the queue, before their leases expire."""
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, settings.redis_timeout_seconds) as redis:
            videos = LostVideos(redis, settings.video_ttl_seconds)
            Recovery(redis, videos, settings.max_attempts).recover_worker(worker_prefix)
    except RedisError as error:
        logger.warning("recovery of dead workers %s* failed, their leases will expire: %s", worker_prefix, error)
