"""Takes what this process counts to Redis every few seconds, so that any other can answer for it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from jobs.metrics import Publisher

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0


@asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[None]:
    """For as long as the block lasts, and once more at its end."""
    task = asyncio.create_task(_publish_again_and_again(publisher))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await _publish(publisher)


async def _publish_again_and_again(publisher: Publisher) -> None:
    while True:
        await asyncio.sleep(_PAUSE_SECONDS)
        await _publish(publisher)


async def _publish(publisher: Publisher) -> None:
    try:
        await asyncio.to_thread(publisher.publish)
    except RedisError as error:
        logger.debug("the metrics wait, Redis is away: %s", error)
