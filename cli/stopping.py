"""How a process that is to run for long ends when it is asked to before it is ready."""

import logging
import signal
from types import FrameType

logger = logging.getLogger(__name__)


def end_on_signals() -> None:
    """From now on SIGTERM and SIGINT end the process with status 0, until it has handlers for its real work.

    To be called before anything slow. The first process of a container is deaf to the signals that it has no handler
    for, and would be killed after the whole time that is given to it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    logger.info("stopped by %s before it was ready", signal.Signals(number).name)
    raise SystemExit(0)
