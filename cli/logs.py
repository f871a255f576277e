"""One line a message, with the time and the process it comes from."""

import logging
import sys


def configure_logging(process: str, level: str) -> None:
    """Log to stderr as `12:34:56 worker  INFO    ready: demo-text on cpu`; the libraries' chatter is left out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {process:<7} %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for name in ("httpx", "urllib3", "diffusers", "transformers", "uvicorn", "rq", "asyncio", "filelock"):
            logging.getLogger(name).setLevel(logging.WARNING)
