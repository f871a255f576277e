"""The API over real sockets: uvicorn in a thread, with the real store behind it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cli.processes.api_server import ApiServer
from jobs.settings import Settings
from server.http.connections import ConnectionLimits


@contextmanager
def serving(settings: Settings, limits: ConnectionLimits | None = None) -> Iterator[str]:
    """The URL of a server with these settings, on a free port."""
    server = ApiServer(settings, limits, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"{'https' if settings.tls_cert else 'http'}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
