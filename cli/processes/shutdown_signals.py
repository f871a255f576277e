"""Signals during the start of a long-running process."""

import logging
import os
import signal
from types import FrameType

logger = logging.getLogger(__name__)


def exit_on_signals(at_once: bool = False) -> None:
    """Exit with status 0 on SIGTERM and SIGINT, until the process installs its own handlers.

    Call it before anything slow: the first process of a container ignores signals without a handler, and would run
    until it is killed.

    Args:
        at_once: Exit without cleaning up. It is for processes that import extension modules and start no children:
            an exception in the middle of such an import is printed, dropped, or ends in a crash.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit_at_once if at_once else _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    logger.info("stopped by %s during the start", signal.Signals(number).name)
    raise SystemExit(0)


def _exit_at_once(number: int, _frame: FrameType | None) -> None:
    logging.raiseExceptions = False  # the signal can interrupt another log line, whose stream then refuses this one
    logger.info("stopped by %s during the start", signal.Signals(number).name)
    os._exit(0)
