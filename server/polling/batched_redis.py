"""Redis reads of many requests in one round trip. Commands that arrive during an exchange join the next one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import ResponseError

Command = tuple[str, ...]


@dataclass(frozen=True)
class _PendingRead:
    commands: Sequence[Command]
    replies: asyncio.Future[list[Any]]


class BatchedRedis:
    """One connection and one exchange at a time, however many requests read. For one event loop, and for reads only."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pending: list[_PendingRead] = []
        self._running: asyncio.Task[None] | None = None

    async def read(self, *commands: Command) -> list[Any]:
        """The replies to the commands.

        :raises RedisError: when Redis does not answer, or refuses one of the commands.
        """
        read = _PendingRead(commands, asyncio.get_running_loop().create_future())
        self._pending.append(read)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await read.replies

    async def aclose(self) -> None:
        if self._running is not None:
            await self._running
        await self._redis.aclose()

    async def _run(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                await self._exchange(batch)
        finally:
            self._running = None

    async def _exchange(self, batch: Sequence[_PendingRead]) -> None:
        try:
            replies = iter(await self._send([command for read in batch for command in read.commands]))
        except Exception as error:
            for read in batch:
                _resolve(read, [error])
            return
        for read in batch:
            _resolve(read, [next(replies) for _ in read.commands])

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        """Do the work of a pipeline at half of its cost, which is most of the cost of a request."""
        pool = self._redis.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _read_reply(connection) for _ in commands]
        except BaseException:
            await connection.disconnect()  # unread replies must not be taken for those of the next exchange
            raise
        finally:
            await pool.release(connection)


def _resolve(read: _PendingRead, replies: list[Any]) -> None:
    if read.replies.done():  # its request was cancelled
        return
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if error is not None:
        read.replies.set_exception(error)
    else:
        read.replies.set_result(replies)


async def _read_reply(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
