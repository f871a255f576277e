"""A Redis client whose writes succeed even when Redis has reached its memory limit.

It is for work that was accepted before: leases, progress, results, expiry and revoked keys. Those writes are small and
bounded, and the work frees memory when it ends. New videos use an ordinary client and are refused.
"""

from collections.abc import Iterable
from typing import Any, Self

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError

from jobs.lua import ALLOW_OOM, read_lua

_RUN_COMMANDS = ALLOW_OOM + read_lua(__file__, "run_commands")
# A script cannot call another one. Scripts have a flag of their own that says whether they may exceed the limit.
_SCRIPT_COMMANDS = frozenset({"EVAL", "EVALSHA", "SCRIPT LOAD", "SCRIPT EXISTS"})


class AllowOomRedis(Redis):
    """Single commands are repeated through a script when Redis is full; transactions always run as one script.

    The replies of a transaction are as Redis sends them, without redis-py's conversions. Pipelines without a
    transaction are for reads and scripts.
    """

    @classmethod
    def over(cls, redis: Redis) -> Self:
        """Return a client that uses the connections of `redis`, which stays their owner."""
        return cls(connection_pool=redis.connection_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except OutOfMemoryError:
            if args[0] in _SCRIPT_COMMANDS:
                raise
            return super().execute_command(*_as_script([args]))[0]  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _AllowOomPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _AllowOomPipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = [args for args, _ in self.command_stack]
        # A method of `Redis` by its type, here a flag of the pipeline.
        is_transaction = bool(self.transaction or self.explicit_transaction)  # type: ignore[truthy-function]
        if not commands or not is_transaction or any(args[0] in _SCRIPT_COMMANDS for args in commands):
            return super().execute(raise_on_error)
        self.command_stack = []
        self.pipeline_execute_command(*_as_script(commands))
        replies: list[Any] = super().execute(raise_on_error)[0]
        return replies


def _as_script(commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    # `CONFIG GET` and the like are two words of one command.
    words = [(*str(name).split(), *rest) for name, *rest in commands]
    return ["EVAL", _RUN_COMMANDS, 0, *(part for command in words for part in (len(command), *command))]
