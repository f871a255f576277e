"""The audit log: one JSON line for each change that a client makes or is refused, appended to a file of its own."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class AuditLog:
    """Appends to `path`. Several processes may share the file, and it may be renamed at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **entry: Any) -> None:
        """Append an entry, with the time. A file that cannot be written is logged, and fails no request."""
        line = json.dumps({"time": round(time.time(), 3), **entry}) + "\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode())  # one call: lines of several processes do not mix
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.error("audit log %s not written: %s", self._path, error)
