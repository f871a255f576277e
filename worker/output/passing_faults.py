"""Repeating work within an attempt after faults that can pass: a full disk, a killed encoder, a device without memory.

`worker/dispatch/attempt_outcome.py` decides whether a failed attempt is followed by another one.
"""

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from worker.device import is_out_of_memory
from worker.output.formats.ffmpeg import EncoderLostError, NoRoomError

logger = logging.getLogger(__name__)

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Result = TypeVar("Result")


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


@dataclass(frozen=True)
class Retry:
    """How long work is repeated after each kind of fault; other errors are raised at once.

    Attributes:
        full_disk_seconds: After a full disk or quota.
        write_seconds: After a killed encoder or another fault of the disk. Most pass soon, and denoising a video again
            costs more than waiting.
        memory_seconds: After the device had no memory.
        interval_seconds: Time between two tries.
        pause: Waits for so many seconds, and returns whether to try again.
    """

    full_disk_seconds: float = 30.0
    write_seconds: float = 30.0
    memory_seconds: float = 60.0
    interval_seconds: float = 0.5
    pause: Callable[[float], bool] = _sleep
    clock: Callable[[], float] = time.monotonic

    def run(self, work: Callable[[], Result], failure: str, before_retry: Callable[[], None] = lambda: None) -> Result:
        """Call `work` until it succeeds, and raise its error when the time for that kind is over.

        `failure` names the failed work in the log.
        """
        started = self.clock()
        while True:
            try:
                return work()
            except Exception as error:
                if self.clock() - started >= self._limit_seconds(error):
                    raise
                logger.warning("%s, retrying in %.1f s: %s", failure, self.interval_seconds, error)
                if not self.pause(self.interval_seconds):
                    raise
            before_retry()

    def _limit_seconds(self, error: Exception) -> float:
        if isinstance(error, NoRoomError) or (isinstance(error, OSError) and error.errno in _FULL_DISK):
            return self.full_disk_seconds
        if isinstance(error, EncoderLostError | OSError):
            return self.write_seconds
        return self.memory_seconds if is_out_of_memory(error) else 0.0
