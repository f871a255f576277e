"""Folders that other users of the machine cannot enter."""

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_MODE = 0o700
_warned: set[Path] = set()


def make_private(folder: Path) -> None:
    """Close an existing folder to other users. Raises `OSError` when it does not exist.

    A folder of another owner stays as it is, with a warning: volumes of Kubernetes belong to root and to a group of
    the pod.
    """
    status = folder.stat()
    if not status.st_mode & 0o077:
        return
    try:
        if status.st_uid != os.geteuid():
            raise PermissionError(f"it belongs to the user {status.st_uid}")
        folder.chmod(_MODE)
        logger.warning("permissions of %s changed from %o to %o", folder, status.st_mode & 0o777, _MODE)
    except PermissionError as error:
        if folder not in _warned:
            logger.warning(
                "other users of this machine may be able to read %s, and its permissions cannot be changed: %s. Give "
                "it to the user of this process, or run `chmod 700`",
                folder,
                error,
            )
        _warned.add(folder)
