"""The API over real sockets: uvicorn in a thread, with the real store behind it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from cli.api import ApiServer
from jobs.settings import Settings
from server.app import create_app


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The URL of a server with these settings, on a free port."""
    server = ApiServer(uvicorn.Config(create_app(settings), port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
