"""Reads from Redis for many requests at once: what is asked for while an answer is on its way goes with the next."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import ResponseError

Command = tuple[str, ...]


class BatchedRedis:
    """One connection, one exchange at a time, however many ask. To be used in one event loop, for reading alone."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[Sequence[Command], asyncio.Future[list[Any]]]] = []
        self._running: asyncio.Task[None] | None = None

    async def read(self, *commands: Command) -> list[Any]:
        """The answers of the commands. Raises `RedisError`."""
        answers: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, answers))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answers

    async def aclose(self) -> None:
        if self._running is not None:
            await self._running
        await self._redis.aclose()

    async def _run(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                await self._exchange(asked)
        finally:
            self._running = None

    async def _exchange(self, asked: Sequence[tuple[Sequence[Command], "asyncio.Future[list[Any]]"]]) -> None:
        try:
            answers = iter(await self._answers([command for commands, _ in asked for command in commands]))
        except Exception as error:
            answers, failure = None, error
        for commands, future in asked:
            own = [failure] if answers is None else [next(answers) for _ in commands]
            if future.done():  # who asked has gone
                continue
            wrong = next((answer for answer in own if isinstance(answer, Exception)), None)
            if wrong is not None:
                future.set_exception(wrong)
            else:
                future.set_result(own)

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        """As a pipeline would, for half of its cost: that is most of what a request costs."""
        pool = self._redis.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _answer(connection) for _ in commands]
        except BaseException:
            await connection.disconnect()  # answers that nobody has read must not come to the next one
            raise
        finally:
            await pool.release(connection)


async def _answer(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
