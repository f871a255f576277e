"""Runs the janitor beside the requests."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from jobs.errors import ArtifactStoreError
from jobs.janitor import Janitor

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0


@asynccontextmanager
async def cleaning(janitor: Janitor) -> AsyncIterator[None]:
    """For as long as the block lasts; what the janitor is at then, it ends after the present video."""
    stopping = asyncio.Event()
    task = asyncio.create_task(_clean_again_and_again(janitor, stopping))
    try:
        yield
    finally:
        stopping.set()
        await task


async def _clean_again_and_again(janitor: Janitor, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            await asyncio.to_thread(janitor.run, stopping.is_set)
        except (RedisError, ArtifactStoreError) as error:
            logger.debug("the janitor waits: %s", error)
        except Exception:
            logger.exception("the janitor")
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _PAUSE_SECONDS)
