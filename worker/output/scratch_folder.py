"""Temporary folders of one worker, in a folder that the next worker removes if this one is killed."""

import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

_PREFIX = "framedit-worker-"


class ScratchFolder:
    """Creates temporary folders. For one thread.

    The worker holds a lock on the folder around them. The system releases it when the process ends in any way. Programs
    that clean up temporary files respect the lock, too.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = -1

    def new(self) -> "tempfile.TemporaryDirectory[str]":
        """Create a temporary folder. Raises `OSError`, after which it may be called again."""
        if self._folder is None or not self._folder.is_dir():
            self.close()
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return tempfile.TemporaryDirectory(dir=self._folder)

    def close(self) -> None:
        """Remove the folder around all temporary folders."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned_folders() -> None:
    """Remove the folders of workers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # of another user, or removed meanwhile
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
            logger.info("temporary folder of a killed worker removed: %s", folder)
        except BlockingIOError:  # its worker is running
            pass
        except OSError as error:
            logger.warning("temporary folder of a killed worker not removed: %s", error)
        finally:
            os.close(lock)
