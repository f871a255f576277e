"""An HTTP service of the operator: a real server whose answers a test chooses."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Service:
    """Its answers to the next requests, and the requests that it has received."""

    url: str = ""
    answer: Any = None
    status: int = 200
    raw: bytes | None = None
    """Sent in place of `answer`."""
    headers: dict[str, str] = field(default_factory=dict)
    drip: bool = False
    """Send a byte every 20 ms until the client leaves."""
    gate: threading.Event | None = None
    """Requests wait for it."""
    received: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def running_service() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            service.paths.append(self.path)
            service.authorizations.append(self.headers.get("authorization"))
            service.received.append(json.loads(body))
            if service.gate is not None:
                service.gate.wait(300)
            content = json.dumps(service.answer).encode() if service.raw is None else service.raw
            try:
                self.send_response(service.status)
                for name, value in service.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                while service.drip:
                    self.wfile.write(b" ")
                    time.sleep(0.02)
                self.wfile.write(content)
            except OSError:
                pass  # the client has left

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        service.drip = False
        if service.gate is not None:
            service.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
