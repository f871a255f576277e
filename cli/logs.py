"""Log lines as text or JSON, with the context of the request or video and without secrets."""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable

from jobs.telemetry import log_context

_LIBRARIES = ("httpx", "httpcore", "urllib3", "uvicorn", "rq", "asyncio", "filelock")
# A shorter secret would also match ordinary words.
_MIN_SECRET_CHARACTERS = 4
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+")


def configure_logging(process: str, level: str, log_format: str = "text", secrets: Iterable[str] = ()) -> None:
    """Log to stderr, as `12:34:56 worker  INFO    ready: demo-text on cpu` or as JSON.

    Libraries log warnings and errors only, unless the level is debug. `secrets` are replaced by `***`.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter(process) if log_format == "json" else TextFormatter(process)
    handler.setFormatter(RedactingFormatter(formatter, secrets))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s {process:<7} %(levelname)-7s %(message)s", "%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """`time` (UTC), `level`, `process`, `logger`, `message`, `exception`, and the fields of `log_context`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        milliseconds = int(record.created % 1 * 1000)
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **log_context.current(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class RedactingFormatter(logging.Formatter):
    """Replaces secrets in the output of another formatter."""

    def __init__(self, formatter: logging.Formatter, secrets: Iterable[str]) -> None:
        super().__init__()
        self._formatter = formatter
        self._secrets = sorted((s for s in secrets if len(s) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = self._formatter.format(record)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return _BEARER.sub(r"\1***", line)
