"""Periodic work that an API process does beside its requests."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from jobs.errors import ArtifactStoreError

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0

IsStopping = Callable[[], bool]


@asynccontextmanager
async def repeating(
    name: str, work: Callable[[IsStopping], object], pause_seconds: float = _PAUSE_SECONDS
) -> AsyncIterator[None]:
    """Run `work` in a thread every `pause_seconds` until the block ends, and wait for the run in progress then.

    `work` receives a function that says whether the block is ending, so that a long run can stop early.
    """
    stopping = asyncio.Event()
    task = asyncio.create_task(_repeat(name, work, pause_seconds, stopping))
    try:
        yield
    finally:
        stopping.set()
        await task


async def run_once(name: str, work: Callable[[], object]) -> None:
    """Run `work` in a thread. Failures are logged: the next run repeats what this one did not finish."""
    try:
        await asyncio.to_thread(work)
    except (RedisError, ArtifactStoreError) as error:
        logger.debug("%s postponed, a store is unavailable: %s", name, error)
    except Exception:
        logger.exception("%s failed", name)


async def _repeat(
    name: str, work: Callable[[IsStopping], object], pause_seconds: float, stopping: asyncio.Event
) -> None:
    while not stopping.is_set():
        await run_once(name, lambda: work(stopping.is_set))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_seconds):
                await stopping.wait()
